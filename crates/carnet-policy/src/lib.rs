//! carnet-policy
