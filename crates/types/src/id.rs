//! Identifiers: fixed-size byte strings with hex text forms.
//!
//! Addresses print with `0x` as wallets show them; hashes print as bare hex.

use borsh::{BorshDeserialize, BorshSerialize};
use sha2::{Digest as _, Sha256};
use std::{fmt, str::FromStr};

/// Why a textual id was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits ({what}), got {got:?}")]
pub struct ParseIdError {
    what: &'static str,
    expected: usize,
    got: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// All bytes zero.
            pub const ZERO: Self = Self([0; $len]);
            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8] { &self.0 }
        }
        impl Default for $name { fn default() -> Self { Self::ZERO } }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), hex::encode(self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let digits = text.strip_prefix("0x").unwrap_or(text);
                let mut bytes = [0; $len];
                hex::decode_to_slice(digits, &mut bytes).map_err(|_| ParseIdError {
                    what: stringify!($name),
                    expected: $len * 2,
                    got: text.chars().take(80).collect(),
                })?;
                Ok(Self(bytes))
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize<'de>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A SHA-256 digest of anything that has no more specific name.
    Hash, 32, ""
);
id!(
    /// An account: the last 20 bytes of the Keccak-256 of its secp256k1 public key.
    Address, 20, "0x"
);
id!(
    /// The hash of the genesis; every signature is bound to it.
    ChainId, 32, ""
);
id!(
    /// A transaction: hash of its call, nonce, expiry, chain and signer (not of the signature).
    TxId, 32, ""
);
id!(
    /// A registered model: hash of its owner and package CID. (T-13)
    ModelId, 32, ""
);
id!(
    /// An order: H(previous order id ‖ H(order)). (T-2)
    OrderId, 32, ""
);
id!(
    /// A pool of the market: hash of its two assets in their order. (G-4)
    PoolId, 32, ""
);
id!(
    /// An ed25519 public key registered by an account for its machines.
    SessionPublicKey, 32, ""
);

impl Hash {
    /// SHA-256 over the concatenation of `parts`, each prefixed with nothing: callers give fixed
    /// tags and fixed-size fields, or encode with the canonical codec first.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }
}

impl ModelId {
    /// The id that registering package `cid` gives `owner`. (T-13)
    pub fn derive(owner: &Address, cid: &crate::Cid) -> Self {
        Self(Hash::of(&[b"althing/model/v1", owner.as_bytes(), &crate::encode(cid)]).0)
    }
}

impl OrderId {
    /// The first eight bytes in hex: enough for people to tell orders apart.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_through_text() {
        let address: Address = "0x00112233445566778899aabbccddeeff00112233".parse().unwrap();
        assert_eq!(address.to_string(), "0x00112233445566778899aabbccddeeff00112233");
        let hash = Hash::of(&[b"abc"]);
        assert_eq!(hash.to_string().parse::<Hash>().unwrap(), hash);
    }

    #[test]
    fn a_wrong_id_says_what_was_expected() {
        let error = "xyz".parse::<Address>().unwrap_err().to_string();
        assert_eq!(error, "expected 40 hexadecimal digits (Address), got \"xyz\"");
    }
}
