//! Whether strangers' addresses may be on this machine.

use althing_content::public::check_url;
use reqwest::Url;

/// Whether a node is on this machine or in a network of its own: then those of whom it tells may be there too. Otherwise
/// providers' endpoints, which anybody may name as they like, are asked at public addresses alone.
pub fn is_near(node: &str) -> bool {
    Url::parse(node).is_ok_and(|url| url.host_str() == Some("localhost") || check_url(&url).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_near_if_its_address_is_private() {
        for (node, near) in [
            ("http://127.0.0.1:8600", true),
            ("http://localhost:8600/", true),
            ("http://[::1]:8600", true),
            ("https://192.168.1.7", true),
            ("https://8.8.8.8", false),
            ("https://node.althing.example", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_near(node), near, "{node}");
        }
    }
}
