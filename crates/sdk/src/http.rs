//! The client of a node over HTTP.
