//! carnet
