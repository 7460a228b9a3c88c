//! How an answer of unknown length is read: with the room that is nearly always enough, then with more.

use std::io;

/// A call that failed.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The system's error.
    pub(crate) error: io::Error,
    /// Whether it means that the answer needs more room.
    pub(crate) too_small: bool,
    /// How many bytes the answer needs, as far as the system says; else 0.
    pub(crate) needed: usize,
}

/// Reads an answer into `buffer` and returns its length.
///
/// `ask` gets the beginning of `buffer` and may be called three times: with [`USUAL`] bytes, with as many as it said it
/// needs, and with the whole. The answer of the last call counts, so one that changes its length in between is read whole
/// or not at all.
pub(crate) fn read(buffer: &mut [u8], mut ask: impl FnMut(&mut [u8]) -> Result<usize, Refusal>) -> io::Result<usize> {
    let whole = buffer.len();
    let mut room = USUAL.min(whole);
    loop {
        match ask(&mut buffer[..room]) {
            Ok(length) if length <= room => return Ok(length),
            Ok(length) => return Err(beyond(length, room)),
            // What is said to be needed is believed once: the next time it is the whole.
            Err(refusal) if refusal.too_small && room < whole => {
                let said = (USUAL + 1..whole).contains(&refusal.needed) && room == USUAL;
                room = if said { refusal.needed } else { whole };
            }
            Err(refusal) => return Err(refusal.error),
        }
    }
}

fn beyond(length: usize, room: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an answer of {length} bytes in a buffer of {room}"))
}

/// What Microsoft's documentation says is nearly always enough.
const USUAL: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever a system says of the needed size, an answer that fits is read whole, in three calls at most.
        #[test]
        fn what_fits_is_read(length in 0..70_000_usize, whole in 0..70_000_usize, said in said()) {
            let mut calls = 0;
            let mut buffer = vec![0; whole];
            let result = read(&mut buffer, |room| {
                calls += 1;
                answer(length, room, &said)
            });

            prop_assert!(calls <= 3, "{} calls", calls);
            match result {
                Ok(read) => {
                    prop_assert_eq!(read, length);
                    prop_assert!(buffer[..length].iter().all(|&byte| byte == 1));
                    prop_assert!(buffer[length..].iter().all(|&byte| byte == 0));
                }
                Err(error) => prop_assert!(length > whole, "{}", error),
            }
        }

        /// The answer grows between two calls: whole, or the error of a buffer that is too small.
        #[test]
        fn an_answer_that_grows_is_not_cut(lengths in proptest::collection::vec(0..70_000_usize, 3), said in said()) {
            let mut lengths = lengths.into_iter();
            let mut last = 0;
            let mut buffer = vec![0; 65_536];
            let result = read(&mut buffer, |room| {
                last = lengths.next().unwrap();
                answer(last, room, &said)
            });
            match result {
                Ok(read) => prop_assert_eq!(read, last),
                Err(error) => prop_assert!(last > 65_536, "{}", error),
            }
        }
    }

    #[test]
    fn another_error_ends_it_at_once() {
        let mut calls = 0;
        let error = read(&mut [0; 4096], |_| {
            calls += 1;
            Err(Refusal { error: io::Error::from_raw_os_error(1), too_small: false, needed: 4096 })
        });
        assert_eq!((error.unwrap_err().raw_os_error(), calls), (Some(1), 1));
    }

    #[test]
    fn a_length_beyond_the_buffer_is_an_error() {
        let error = read(&mut [0; 2048], |room| Ok(room.len() + 1)).unwrap_err();
        assert_eq!(error.to_string(), "an answer of 1025 bytes in a buffer of 1024");
    }

    /// The truth; nothing; or a lie.
    fn said() -> impl Strategy<Value = Option<usize>> {
        prop_oneof![Just(None), Just(Some(0)), (0..100_000_usize).prop_map(Some)]
    }

    fn answer(length: usize, room: &mut [u8], said: &Option<usize>) -> Result<usize, Refusal> {
        match room.get_mut(..length) {
            Some(room) => {
                room.fill(1);
                Ok(length)
            }
            None => {
                Err(Refusal { error: io::Error::other("too small"), too_small: true, needed: said.unwrap_or(length) })
            }
        }
    }
}
