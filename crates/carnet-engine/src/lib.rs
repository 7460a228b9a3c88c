//! carnet-engine
