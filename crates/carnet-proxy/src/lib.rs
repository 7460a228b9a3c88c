//! carnet-proxy
