//! A host with two users and a few files.

use std::{io, net::SocketAddr, path::Path};

use carnet_proxy::rules::{Facts, Host, Mistake, Origin, Rules};

pub const PATH: &str = "conf/rules.toml";

pub struct Somewhere;

impl Host for Somewhere {
    fn read(&self, path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("conf/ads.txt") => Ok("# ads\nads.example\r\n\n*.banner.example # all\n".into()),
            Some("conf/wrong.txt") => Ok("good.example\n  two words\n".into()),
            Some("conf/empty") => Ok("\n".into()),
            Some("/etc/password") => Ok("open sesame\n".into()),
            Some("conf/denied") => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn uid(&self, user: &str) -> io::Result<Option<u32>> {
        match user {
            "alice" => Ok(Some(1000)),
            "_apt" => Ok(Some(42)),
            "broken" => Err(io::Error::other("the directory of users does not answer")),
            _ => Ok(None),
        }
    }
}

pub fn read(text: &str) -> Result<Rules, Vec<Mistake>> {
    Rules::parse(text, Path::new(PATH), &Somewhere)
}

pub fn rules(text: &str) -> Rules {
    read(text).unwrap_or_else(|mistakes| panic!("{text}\n{}", said(&mistakes)))
}

pub fn said(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(|mistake| format!("{mistake}\n")).collect()
}

/// Of a flow of which nothing is known but where it goes.
pub fn facts<'f>() -> Facts<'f> {
    Facts {
        name: None,
        protocol: None,
        alpn: &[],
        ja4: None,
        ech: false,
        destination: SocketAddr::from(([192, 0, 2, 7], 443)),
        origin: Origin::default(),
    }
}

pub fn named(name: &str) -> Facts<'_> {
    Facts { name: Some(name), ..facts() }
}

pub fn to(destination: &str) -> Facts<'static> {
    Facts { destination: destination.parse().unwrap(), ..facts() }
}
