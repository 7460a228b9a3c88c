//! What is mounted where, in the calling process's mount namespace.

use std::fs;
use std::path::PathBuf;

use crate::Error;

/// The contents of `/proc/thread-self/mounts`: a thread may have a mount namespace of its own, and `/proc/self` is the
/// first thread's.
pub fn read() -> Result<String, Error> {
    fs::read_to_string("/proc/thread-self/mounts")
        .map_err(|error| Error::io("cannot read /proc/thread-self/mounts", error))
}

/// Where file systems of a type are mounted, in the order of the contents.
pub fn of_type(mounts: &str, wanted: &str) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(move |line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == wanted).then(|| unescape(place))
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 4);
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn mount_points_with_escaped_characters() {
        assert_eq!(unescape("/a\\040b"), Path::new("/a b"));
        assert_eq!(unescape("/a\\134b\\0"), Path::new("/a\\b\\0"));
        assert_eq!(unescape("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup"));
    }
}
