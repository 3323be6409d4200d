//! API keys: what clients send, and the session key of the account that pays for them.

use althing_sdk::{SessionKeyPair, SessionSigner};
use althing_types::{Address, Hash, Lane, Order, OrderId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io::Write as _, path::Path};

/// One API key. Who holds it spends what the ledger lets the session key spend.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// What clients send as bearer token.
    pub api_key: String,
    /// The account that pays.
    pub account: Address,
    /// Secret of a session key of that account, scope client.
    pub session_key: Hash,
}

impl ApiKey {
    /// The session key.
    pub fn pair(&self) -> SessionKeyPair {
        SessionKeyPair::from_secret(self.session_key.0).expect("any 32 bytes are an ed25519 secret")
    }
    /// Where the receipt of an order is served. What passed between a client and its provider is theirs, and so is the
    /// address: it can be guessed by nobody who has not the key.
    pub fn receipt_path(&self, order: &Order) -> String {
        match order.lane {
            Lane::Open => Self::receipt_path_public(&order.id),
            Lane::Chosen { .. } => self.receipt_path_private(&order.id),
        }
    }

    /// That of an open order.
    pub fn receipt_path_public(order: &OrderId) -> String {
        format!("/v1/receipts/{order}")
    }

    /// That of an order between client and provider.
    pub fn receipt_path_private(&self, order: &OrderId) -> String {
        format!("/v1/receipts/{order}?token={}", self.receipt_token(order))
    }

    /// The part of the address that only the key gives.
    pub fn receipt_token(&self, order: &OrderId) -> Hash {
        Hash::of(&[b"althing/receipt-token/v1", &self.session_key.0, order.as_bytes()])
    }

    /// What signs for the account.
    pub fn signer(&self) -> SessionSigner {
        SessionSigner { account: self.account, key: self.pair() }
    }
}

/// Why the file of keys was not used.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeysError {
    #[error("cannot read or write the API keys in {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("{path} is not a list of API keys: {source}")]
    Malformed { path: String, source: serde_json::Error },
}

/// All API keys of a gateway, found by the hash of what a client sent: the time of a look-up says
/// nothing about the keys.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys(BTreeMap<Hash, ApiKey>);

fn hash(api_key: &str) -> Hash {
    Hash::of(&[b"althing/api-key/v1", api_key.as_bytes()])
}

impl ApiKeys {
    /// These keys.
    pub fn new(keys: impl IntoIterator<Item = ApiKey>) -> Self {
        Self(keys.into_iter().map(|key| (hash(&key.api_key), key)).collect())
    }

    /// Reads a JSON list of keys; a file that is absent has none.
    ///
    /// # Errors
    /// If the file cannot be read or is malformed.
    pub fn read(path: &Path) -> Result<Self, ApiKeysError> {
        let name = || path.display().to_string();
        match std::fs::read(path) {
            Ok(bytes) => {
                let keys: Vec<ApiKey> = serde_json::from_slice(&bytes)
                    .map_err(|source| ApiKeysError::Malformed { path: name(), source })?;
                Ok(Self::new(keys))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ApiKeysError::Io { path: name(), source }),
        }
    }

    /// Adds a key to the file, which only its owner may read.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn add(path: &Path, key: ApiKey) -> Result<(), ApiKeysError> {
        let mut keys = Self::read(path)?;
        keys.0.insert(hash(&key.api_key), key);
        let list: Vec<_> = keys.0.values().collect();
        let write = || -> std::io::Result<()> {
            let new = path.with_extension("new");
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&new)?;
            file.write_all(&serde_json::to_vec_pretty(&list)?)?;
            file.sync_all()?;
            std::fs::rename(new, path)
        };
        write().map_err(|source| ApiKeysError::Io { path: path.display().to_string(), source })
    }

    /// The key that a client sent, if it is one.
    pub fn find(&self, api_key: &str) -> Option<&ApiKey> {
        self.0.get(&hash(api_key))
    }

    /// Whether somebody who shows `token` may have an order's receipt.
    pub fn opens(&self, order: &OrderId, token: &str) -> bool {
        let Ok(token) = token.parse::<Hash>() else { return false };
        // Compared by their hashes: the time says nothing about the token.
        let blind = |token: Hash| Hash::of(&[b"althing/receipt-token-compare/v1", token.as_bytes()]);
        self.0.values().any(|key| blind(key.receipt_token(order)) == blind(token))
    }

    /// A new random key text.
    pub fn random_text() -> String {
        format!("sk-althing-{}", Hash(rand::random()))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_in_their_file_and_strangers_find_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api-keys.json");
        assert!(ApiKeys::read(&path).unwrap().is_empty());
        for name in ["sk-a", "sk-b"] {
            let key = ApiKey { api_key: name.into(), account: Address([1; 20]), session_key: Hash([2; 32]) };
            ApiKeys::add(&path, key).unwrap();
        }
        let keys = ApiKeys::read(&path).unwrap();
        assert_eq!(keys.len(), 2);
        assert!(keys.find("sk-a").is_some() && keys.find("sk-c").is_none());
        let (order, other) = (OrderId([3; 32]), OrderId([4; 32]));
        let token = keys.find("sk-a").unwrap().receipt_token(&order).to_string();
        assert!(keys.opens(&order, &token) && !keys.opens(&other, &token) && !keys.opens(&order, ""));
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(ApiKeys::read(&path), Err(ApiKeysError::Malformed { .. })));
    }
}
