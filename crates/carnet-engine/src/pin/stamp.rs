//! What the stamp says, and whether this build can go on from it.

use std::collections::BTreeMap;
use std::fmt;

use carnet_abi::{ABI_VERSION, IMAGE_VERSION};
use libbpf_rs::{MapCore, MapHandle, MapType, OpenMap};

use super::layout::layouts;
use crate::load::SIZED_BY_OPTIONS;
use crate::{Error, ErrorKind};

/// Written as words: `carnet-pins-1 version=0.1.0 abi=1 image=1 carnet_config=0123456789abcdef ...`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stamp {
    /// Of the build.
    pub version: String,
    abi: u16,
    image: u32,
    /// [`layouts`], by map.
    layouts: BTreeMap<String, u64>,
}

impl Stamp {
    pub fn of_this_build() -> Result<Self, Error> {
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            abi: ABI_VERSION,
            image: IMAGE_VERSION,
            layouts: layouts()?,
        })
    }

    /// `None`: not a stamp of a form that this build knows.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(FORM)?;
        let mut words: BTreeMap<_, _> = rest.split_ascii_whitespace().filter_map(|word| word.split_once('=')).collect();
        let version = words.remove("version")?.to_owned();
        let abi = words.remove("abi")?.parse().ok()?;
        let image = words.remove("image")?.parse().ok()?;
        let layout = |(map, layout): (&str, &str)| Some((map.to_owned(), u64::from_str_radix(layout, 16).ok()?));
        Some(Self { version, abi, image, layouts: words.into_iter().map(layout).collect::<Option<_>>()? })
    }

    /// Whether this build can go on with what a build with that stamp has pinned.
    pub fn check(&self, theirs: &Self) -> Result<(), Difference> {
        if self.abi != theirs.abi {
            return Err(Difference::Abi { there: theirs.abi, here: self.abi });
        }
        if self.image != theirs.image {
            return Err(Difference::Image { there: theirs.image, here: self.image });
        }
        for (map, layout) in &self.layouts {
            match theirs.layouts.get(map) {
                None => return Err(Difference::New(map.clone())),
                Some(theirs) if theirs != layout && !TAKES_ON.contains(&(map, *theirs)) => {
                    return Err(Difference::Layout(map.clone()));
                }
                Some(_) => {}
            }
        }
        let gone = theirs.layouts.keys().find(|map| !self.layouts.contains_key(*map));
        gone.map_or(Ok(()), |map| Err(Difference::Gone(map.clone())))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORM}version={} abi={} image={}", self.version, self.abi, self.image)?;
        self.layouts.iter().try_for_each(|(map, layout)| write!(f, " {map}={layout:016x}"))
    }
}

/// Whether a pinned map can take the place of the one of this build, as far as the kernel knows it.
pub fn check_map(here: &OpenMap<'_>, there: &MapHandle) -> Result<(), Difference> {
    let name = here.name().to_string_lossy();
    let numbers = |what, there: u32, here: u32| {
        let map = name.clone().into_owned();
        if there == here { Ok(()) } else { Err(Difference::Size { map, what, there, here }) }
    };
    if here.map_type() != there.map_type() {
        let (there, here) = (there.map_type(), here.map_type());
        return Err(Difference::Kind { map: name.into_owned(), there, here });
    }
    numbers("keys", there.key_size(), here.key_size())?;
    numbers("values", there.value_size(), here.value_size())?;
    if !SIZED_BY_OPTIONS.contains(&&*name) {
        numbers("entries", there.max_entries(), here.max_entries())?;
    }
    Ok(())
}

/// Why this build cannot go on with what is pinned.
#[derive(Debug, Eq, PartialEq)]
pub enum Difference {
    Unknown,
    Abi {
        there: u16,
        here: u16,
    },
    /// The same bytes mean something else.
    Image {
        there: u32,
        here: u32,
    },
    New(String),
    Gone(String),
    Layout(String),
    Kind {
        map: String,
        there: MapType,
        here: MapType,
    },
    /// `what` is `keys`, `values` or `entries`.
    Size {
        map: String,
        what: &'static str,
        there: u32,
        here: u32,
    },
}

impl Difference {
    fn map(&self) -> Option<String> {
        match self {
            Self::Unknown | Self::Abi { .. } | Self::Image { .. } => None,
            Self::New(map) | Self::Gone(map) | Self::Layout(map) => Some(map.clone()),
            Self::Kind { map, .. } | Self::Size { map, .. } => Some(map.clone()),
        }
    }

    /// As the error of who wants to adopt what is at `folder`.
    pub fn at(self, folder: &std::path::Path) -> Error {
        let what = format!("cannot go on with the engine that is pinned at {}: {self}", folder.display());
        Error::new(ErrorKind::Incompatible(self.map()), what)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("its stamp is of a form that this build does not know"),
            Self::Abi { there, here } => write!(f, "its interface has the version {there}, this build's has {here}"),
            Self::Image { there, here } => {
                write!(f, "what is in its maps is of the version {there}, this build's of {here}")
            }
            Self::New(map) => write!(f, "it has no map {map}, which this build needs"),
            Self::Gone(map) => write!(f, "it has the map {map}, of which this build knows nothing"),
            Self::Layout(map) => write!(f, "the fields of its map {map} are not those of this build"),
            Self::Kind { map, there, here } => write!(f, "its map {map} is a {there:?}, this build's is a {here:?}"),
            Self::Size { map, what: "entries", there, here } => {
                write!(f, "its map {map} has room for {there} entries, this build's for {here}")
            }
            Self::Size { map, what, there, here } => {
                write!(f, "its map {map} has {what} of {there} bytes, this build's of {here}")
            }
        }
    }
}

const FORM: &str = "carnet-pins-1 ";

/// Layouts of earlier builds which this one can read and write, by map: values grew into what was padding, and zero there
/// means what it meant before. Who changes a layout in that way adds the number it had, which is in the stamp of a build
/// before the change.
const TAKES_ON: &[(&str, u64)] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Stamp {
        Stamp::parse("carnet-pins-1 version=0.1.0 abi=1 image=1 carnet_a=00000000000000ff carnet_b=0000000000000001")
            .expect("good")
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let ours = Stamp::of_this_build().expect("the object has BTF");
        assert_eq!(Stamp::parse(&ours.to_string()), Some(ours.clone()));
        assert!(ours.to_string().len() < 4096, "a symbolic link has no room for more");
        for bad in [
            "",
            "carnet-pins-2 version=0.1.0 abi=1 image=1",
            "carnet-pins-1 version=0.1.0 abi=1",
            "carnet-pins-1 version=0.1.0 image=1",
            "carnet-pins-1 version=1 abi=1 image=1 a=x",
        ] {
            assert_eq!(Stamp::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_differs_is_named() {
        let ours = some();
        assert_eq!(ours.check(&some()), Ok(()));
        assert_eq!(ours.check(&Stamp { version: "9".into(), ..some() }), Ok(()), "a version alone is no difference");
        assert_eq!(ours.check(&Stamp { abi: 2, ..some() }), Err(Difference::Abi { there: 2, here: 1 }));
        assert_eq!(ours.check(&Stamp { image: 2, ..some() }), Err(Difference::Image { there: 2, here: 1 }));
        let mut theirs = some();
        theirs.layouts.insert("carnet_b".into(), 2);
        assert_eq!(ours.check(&theirs), Err(Difference::Layout("carnet_b".into())));
        theirs.layouts.remove("carnet_b");
        assert_eq!(ours.check(&theirs), Err(Difference::New("carnet_b".into())));
        assert_eq!(theirs.check(&ours), Err(Difference::Gone("carnet_b".into())));
    }

    #[test]
    fn differences_are_sentences() {
        let size = |what| Difference::Size { map: "m".into(), what, there: 1, here: 2 };
        let kind = Difference::Kind { map: "m".into(), there: MapType::Hash, here: MapType::Array };
        for difference in [Difference::Unknown, size("keys"), size("values"), size("entries"), kind] {
            let text = difference.at("/sys/fs/bpf/carnet".as_ref()).to_string();
            assert!(!text.contains("  ") && !text.contains('\n') && text.contains("carnet down"), "{text}");
        }
    }
}
