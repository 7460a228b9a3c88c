//! A daemon of another build takes over.
