//! What two processes say to each other. Each message is one packet: `carnetho`, the version, what it is, and for
//! [`Message::Listeners`] how many there are, two bytes, the higher one first.

use std::fmt;

/// One of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message {
    /// The next process wants to take over.
    Ask,
    /// The running one has so many listeners; descriptors come along, and with [`More`](Self::More) until all are there.
    /// None: it is about to end.
    Listeners(u16),
    /// More descriptors.
    More,
    /// The next process accepts connections.
    Serving,
    /// The running one does not any more.
    Draining,
}

/// It is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unreadable {
    /// It is something else, or cut off.
    Strange,
    /// It is of this version.
    Version(u8),
}

impl Message {
    /// The packet.
    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = [MAGIC, &[VERSION, self.kind()]].concat();
        if let Self::Listeners(count) = self {
            bytes.extend(count.to_be_bytes());
        }
        bytes
    }

    /// What a packet says.
    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(Unreadable::Strange)?;
        match *rest {
            [version, ..] if version != VERSION => Err(Unreadable::Version(version)),
            [_, ASK] => Ok(Self::Ask),
            [_, LISTENERS, high, low] => Ok(Self::Listeners(u16::from_be_bytes([high, low]))),
            [_, MORE] => Ok(Self::More),
            [_, SERVING] => Ok(Self::Serving),
            [_, DRAINING] => Ok(Self::Draining),
            _ => Err(Unreadable::Strange),
        }
    }

    fn kind(self) -> u8 {
        match self {
            Self::Ask => ASK,
            Self::Listeners(_) => LISTENERS,
            Self::More => MORE,
            Self::Serving => SERVING,
            Self::Draining => DRAINING,
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strange => f.write_str("it says what no carnet proxy says"),
            Self::Version(version) => write!(
                f,
                "it hands over by version {version}, and this is version {VERSION}: stop it with SIGTERM, and start this one \
                 then"
            ),
        }
    }
}

impl std::error::Error for Unreadable {}

/// Longer than any message, so that one that is too long is seen to be.
pub const ROOM: usize = 32;

const MAGIC: &[u8] = b"carnetho";
const VERSION: u8 = 1;

const ASK: u8 = 1;
const LISTENERS: u8 = 2;
const MORE: u8 = 3;
const SERVING: u8 = 4;
const DRAINING: u8 = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_message() -> impl Strategy<Value = Message> {
        prop_oneof![
            Just(Message::Ask),
            any::<u16>().prop_map(Message::Listeners),
            Just(Message::More),
            Just(Message::Serving),
            Just(Message::Draining),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(message in any_message()) {
            prop_assert_eq!(Message::read(&message.bytes()), Ok(message));
            prop_assert!(message.bytes().len() < ROOM);
        }

        /// Only what would be written like that is read.
        #[test]
        fn whatever_is_changed_is_seen(message in any_message(), at in 0..ROOM, to: u8, length in 0..ROOM) {
            let mut bytes = message.bytes();
            bytes.resize(length, 0);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            if let Ok(read) = Message::read(&bytes) {
                prop_assert_eq!(read.bytes(), bytes);
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            prop_assert_eq!(Message::read(&bytes), Err(Unreadable::Strange));
        }
    }

    #[test]
    fn another_version_is_told_whatever_else_it_says() {
        let mut bytes = Message::Ask.bytes();
        bytes[MAGIC.len()] = 2;
        bytes.extend([7; 10]);
        let error = Message::read(&bytes).unwrap_err();
        assert_eq!(error, Unreadable::Version(2));
        assert!(error.to_string().contains("version 2"));
    }
}
