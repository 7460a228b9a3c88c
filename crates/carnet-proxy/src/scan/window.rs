//! The part of a text that is looked at as one piece.

/// Bytes in their order, cut into windows at places that depend on nothing but their number. The first window is the
/// longest; each one after it begins with the last bytes of the one before.
#[derive(Debug)]
pub(super) struct Window {
    bytes: Vec<u8>,
    /// How many of `bytes` were looked at, maybe as a part of less than there is now.
    seen: usize,
    /// All of `bytes` were looked at as one piece, or were in a window that was.
    whole: bool,
    /// How long it may become.
    full: usize,
    sizes: Sizes,
}

/// How long windows are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// The first.
    pub(super) first: usize,
    /// What is new in each one after it.
    pub(super) step: usize,
    /// What is not.
    pub(super) overlap: usize,
}

impl Window {
    pub(super) fn new(sizes: Sizes) -> Self {
        Self { bytes: Vec::new(), seen: 0, whole: true, full: sizes.first, sizes }
    }

    /// Takes bytes; `look` gets each window that is full.
    pub(super) fn push<E>(&mut self, mut bytes: &[u8], mut look: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.room()));
            self.bytes.extend_from_slice(now);
            self.whole = false;
            bytes = later;
            if self.bytes.len() == self.full {
                look(&self.bytes)?;
                self.slide();
            }
        }
        Ok(())
    }

    /// What was not looked at yet is; what came shortly before it, again.
    pub(super) fn catch_up<E>(&mut self, mut look: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.seen < self.bytes.len() {
            let from = self.seen.saturating_sub(self.sizes.overlap);
            look(&self.bytes[from..])?;
            self.whole = from == 0;
            self.seen = self.bytes.len();
        }
        Ok(())
    }

    /// There is no more.
    pub(super) fn end<E>(&mut self, mut look: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if !self.whole {
            look(&self.bytes)?;
            self.whole = true;
        }
        self.bytes = Vec::new();
        Ok(())
    }

    /// The next one begins. All that is there was looked at.
    pub(super) fn slide(&mut self) {
        let overlap = self.bytes.len().saturating_sub(self.sizes.overlap);
        self.bytes.drain(..overlap);
        self.bytes.shrink_to_fit();
        self.seen = self.bytes.len();
        self.whole = true;
        self.full = self.sizes.overlap + self.sizes.step;
    }

    /// How much it lacks to be full.
    pub(super) fn room(&self) -> usize {
        self.full - self.bytes.len()
    }

    /// The memory it takes.
    pub(super) fn kept(&self) -> usize {
        self.bytes.capacity()
    }
}
