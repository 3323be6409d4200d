//! Where the input of an order can be had: a URL that the client names. (T-1)

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Most bytes of a source.
pub const CONTENT_SOURCE_BYTES_MAX: usize = 256;

/// Base URL of a trustless gateway that has the input of an order, such as `http://203.0.113.7:8700`: below it lies
/// `/ipfs/CID`. It is public like all of a transaction.
///
/// Read from a transaction it may be anything; [`Self::check`] is what the ledger asks before it is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentSource(pub String);

/// Why a text is no source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentSourceError {
    #[error("a source has at most {CONTENT_SOURCE_BYTES_MAX} bytes")]
    TooLong,
    #[error("a source has no spaces, control characters, backslashes or letters beyond ASCII")]
    Character,
    #[error("a source starts with http:// or https://")]
    Scheme,
    #[error("a source names a host by its name or address, and perhaps a port")]
    Host,
    #[error("a source carries no user name or password: it is public")]
    UserInfo,
    #[error("a source has no query and no fragment")]
    Query,
}

impl ContentSource {
    /// Whether it is the base URL of something that can be asked. The rules are these alone, whatever libraries think
    /// of URLs, since every node must come to the same answer.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), ContentSourceError> {
        use ContentSourceError as E;
        let text = &self.0;
        if text.len() > CONTENT_SOURCE_BYTES_MAX {
            return Err(E::TooLong);
        }
        // Some take a backslash for a slash: who the host is must not depend on that.
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
            return Err(E::Character);
        }
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).ok_or(E::Scheme)?;
        if rest.contains(['?', '#']) {
            return Err(E::Query);
        }
        let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
        if authority.contains('@') {
            return Err(E::UserInfo);
        }
        if is_authority(authority) { Ok(()) } else { Err(E::Host) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name or an address, and perhaps a port.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, rest)) if host.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", rest),
            _ => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_host = host.bytes().all(is_name) && host.bytes().any(|byte| byte.is_ascii_alphanumeric());
    let is_port = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok_and(|n| n > 0),
        None => port.is_empty(),
    };
    is_host && is_port
}

impl fmt::Display for ContentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContentSource {
    type Err = ContentSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let source = Self(text.to_owned());
        source.check()?;
        Ok(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ContentSourceError as E;

    /// T-1
    #[test]
    fn a_source_is_the_base_url_of_a_host() {
        let path_of = |bytes: usize| format!("http://a/{}", "p".repeat(bytes - "http://a/".len()));
        let (longest, too_long) = (path_of(CONTENT_SOURCE_BYTES_MAX), path_of(CONTENT_SOURCE_BYTES_MAX + 1));
        for (text, expected) in [
            ("http://a", Ok(())),
            ("https://gateway.example/", Ok(())),
            ("https://gateway.example:8443/below/this", Ok(())),
            ("http://203.0.113.7:65535", Ok(())),
            ("http://[2001:db8::1]:80/", Ok(())),
            ("http://[::]", Ok(())),
            ("http://under_score.example", Ok(())),
            ("http://a/@b", Ok(())),
            (longest.as_str(), Ok(())),
            (too_long.as_str(), Err(E::TooLong)),
            ("", Err(E::Scheme)),
            ("gateway.example", Err(E::Scheme)),
            ("HTTP://a", Err(E::Scheme)),
            ("ftp://a", Err(E::Scheme)),
            ("file:///etc/passwd", Err(E::Scheme)),
            ("http:/a", Err(E::Scheme)),
            ("http://", Err(E::Host)),
            ("http:///a", Err(E::Host)),
            ("http://.", Err(E::Host)),
            ("http://:80", Err(E::Host)),
            ("http://a:", Err(E::Host)),
            ("http://a:0", Err(E::Host)),
            ("http://a:+1", Err(E::Host)),
            ("http://a:65536", Err(E::Host)),
            ("http://a:80:80", Err(E::Host)),
            ("http://%61", Err(E::Host)),
            ("http://[::1", Err(E::Host)),
            ("http://[::1]80", Err(E::Host)),
            ("http://[fe80::1%25eth0]", Err(E::Host)),
            ("http://[1.2.3.4]", Err(E::Host)),
            ("http://user@a", Err(E::UserInfo)),
            ("http://user:secret@a", Err(E::UserInfo)),
            ("http://a?q", Err(E::Query)),
            ("http://a/?q", Err(E::Query)),
            ("http://a/#f", Err(E::Query)),
            ("http://a b", Err(E::Character)),
            ("http://a\n", Err(E::Character)),
            ("http://a\\@b", Err(E::Character)),
            ("http://ä", Err(E::Character)),
        ] {
            assert_eq!(ContentSource(text.into()).check(), expected, "{text:?}");
            assert_eq!(text.parse::<ContentSource>().map(|source| source.0), expected.map(|()| text.into()));
        }
    }
}
