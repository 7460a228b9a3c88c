use zerocopy::FromBytes;

use crate::Event;

impl Event {
    /// An event as it comes out of the ring buffer. Events grow at their end, so what follows the fields that are known
    /// here is left out. `None`: there are not that many bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self::read_from_prefix(bytes).ok()?.0)
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn a_longer_event_is_read_and_a_shorter_one_is_not() {
        let event = Event { kind: 7, time: 5, protocol: 255, ..Event::default() };
        let mut bytes = [1; size_of::<Event>() + 3];
        bytes[..size_of::<Event>()].copy_from_slice(event.as_bytes());
        assert_eq!(Event::from_bytes(&bytes), Some(event));
        assert_eq!(Event::from_bytes(&bytes[..size_of::<Event>() - 1]), None);
        assert_eq!(Event::from_bytes(&[]), None);
    }
}
