//! `Content-Encoding`, undone: what a client would make of a body.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use brotli_decompressor::{BrotliDecoderParameter, DecompressorWriter};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use zstd::stream::{
    raw::{DParameter, Decoder as ZstdDecoder},
    zio::Writer as ZstdWriter,
};

use super::sink::Sink;

/// Takes what is encoded.
pub(super) type Decoder = Box<dyn Write + Send>;

/// Undoes the encodings of a header, in front of `sink`. `None`: there is none, or one that is not known.
pub(super) fn decoder(content_encoding: &str, sink: Arc<Mutex<Sink>>) -> Option<Decoder> {
    let codings: Vec<_> = codings(content_encoding).collect();
    if codings.is_empty() || codings.len() > MOST_CODINGS {
        return None;
    }
    // They are named in the order in which they were applied, so what is written goes through the last one first.
    codings.into_iter().try_fold(Box::new(Shared(sink)) as Decoder, |inner, coding| undo(&coding, inner))
}

/// The memory that a decoder may take, whatever it reads.
pub(super) fn memory(content_encoding: &str) -> usize {
    let memory = |coding: String| match coding.as_str() {
        "br" => 17 << 20, // its window, and tables
        "zstd" => (1 << WINDOW_LOG_MAX) + (1 << 20),
        _ => 128 << 10,
    };
    codings(content_encoding).take(MOST_CODINGS).map(memory).sum()
}

fn codings(content_encoding: &str) -> impl Iterator<Item = String> {
    let codings = content_encoding.split(',').map(|coding| coding.trim().to_ascii_lowercase());
    codings.filter(|coding| !coding.is_empty() && coding != "identity")
}

fn undo(coding: &str, inner: Decoder) -> Option<Decoder> {
    Some(match coding {
        "gzip" | "x-gzip" => Box::new(MultiGzDecoder::new(inner)),
        "deflate" => Box::new(Deflate::Unknown { inner: Some(inner), first: None }),
        "br" => {
            let mut decoder = DecompressorWriter::new(inner, BUFFER);
            // Else a window may be 1 GiB, in an extension that no client asks for as `br`.
            decoder.set_parameter(BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
            Box::new(decoder)
        }
        "zstd" => {
            let mut decoder = ZstdDecoder::new().ok()?;
            decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).ok()?;
            Box::new(ZstdWriter::new(inner, decoder))
        }
        _ => return None,
    })
}

/// A sink that somebody else looks into.
struct Shared(Arc<Mutex<Sink>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `deflate` is zlib's format (RFC 9110, section 8.4.1.2), but some servers send what is inside of it, and clients take
/// both.
enum Deflate {
    Unknown { inner: Option<Decoder>, first: Option<u8> },
    Zlib(ZlibDecoder<Decoder>),
    Bare(DeflateDecoder<Decoder>),
}

impl Write for Deflate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (inner, first) = match self {
            Self::Zlib(decoder) => return decoder.write(bytes),
            Self::Bare(decoder) => return decoder.write(bytes),
            Self::Unknown { inner, first } => (inner, first),
        };
        let (one, two) = match (*first, bytes) {
            (None, &[one, two, ..]) => (one, two),
            (None, &[one]) => {
                *first = Some(one);
                return Ok(1);
            }
            (Some(one), &[two, ..]) => (one, two),
            (_, []) => return Ok(0),
        };
        let (inner, first) = (inner.take().ok_or(io::ErrorKind::BrokenPipe)?, *first);
        // RFC 1950, section 2.2: the method, and a check over both bytes.
        *self = match one & 0x0f == 8 && u16::from_be_bytes([one, two]) % 31 == 0 {
            true => Self::Zlib(ZlibDecoder::new(inner)),
            false => Self::Bare(DeflateDecoder::new(inner)),
        };
        self.write_all(first.as_slice())?;
        self.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Zlib(decoder) => decoder.flush(),
            Self::Bare(decoder) => decoder.flush(),
            Self::Unknown { .. } => Ok(()),
        }
    }
}

/// More than anybody uses.
const MOST_CODINGS: usize = 4;

const BUFFER: usize = 32 << 10;

/// 8 MiB, the most that a client has to take (RFC 9659).
const WINDOW_LOG_MAX: u32 = 23;
