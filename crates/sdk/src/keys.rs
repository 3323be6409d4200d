//! Keys and what they sign.

use althing_types::{Address, Call, ChainId, Hash, SessionPublicKey, SignedTx, tx::address_of};
use std::{fmt, path::Path};

/// Something that authorises transactions for one account.
pub trait Signer: Send + Sync + 'static {
    /// The account that it acts for.
    fn account(&self) -> Address;
    /// The session key in use, `None` for a wallet.
    fn session_key(&self) -> Option<SessionPublicKey>;
    /// Signs a call.
    fn sign(&self, chain: &ChainId, call: Call, nonce: u64, expires_at_ms: u64) -> SignedTx;
}

/// Why a key file was not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the key file {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("cannot write the key file {path}: {source}")]
    Write { path: String, source: std::io::Error },
    #[error("{0} holds no key: 64 hexadecimal digits are expected")]
    Malformed(String),
}

fn random_secret() -> [u8; 32] {
    rand::random()
}

fn read_secret(path: &Path) -> Result<[u8; 32], KeyError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| KeyError::Read { path: name.clone(), source })?;
    text.trim().parse::<Hash>().map(|hash| hash.0).map_err(|_| KeyError::Malformed(name))
}

/// Writes a line into a new file that only its owner may read; an existing file is never overwritten.
///
/// # Errors
/// If the file exists or cannot be written.
pub fn write_secret_line(path: &Path, line: &str) -> Result<(), KeyError> {
    use std::io::Write as _;
    let failed = |source| KeyError::Write { path: path.display().to_string(), source };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(failed)?;
    writeln!(file, "{line}").and_then(|()| file.sync_all()).map_err(failed)
}

macro_rules! key_files {
    () => {
        /// A new random key.
        pub fn random() -> Self {
            loop {
                if let Some(key) = Self::from_secret(random_secret()) {
                    return key;
                }
            }
        }
        /// Reads a key file: 64 hexadecimal digits.
        ///
        /// # Errors
        /// If the file cannot be read or holds no key.
        pub fn read(path: &Path) -> Result<Self, KeyError> {
            Self::from_secret(read_secret(path)?).ok_or_else(|| KeyError::Malformed(path.display().to_string()))
        }
        /// Writes the key into a new file that only its owner may read.
        ///
        /// # Errors
        /// If the file exists or cannot be written.
        pub fn write(&self, path: &Path) -> Result<(), KeyError> {
            write_secret_line(path, &Hash(self.secret()).to_string())
        }
    };
}

/// An account's own secp256k1 key.
#[derive(Clone)]
pub struct WalletSigner(secp256k1::SecretKey);

impl WalletSigner {
    key_files!();
    /// The key of these bytes, `None` if they are not a scalar of the curve.
    pub fn from_secret(secret: [u8; 32]) -> Option<Self> {
        secp256k1::SecretKey::from_secret_bytes(secret).ok().map(Self)
    }
    /// The secret itself; keep it so.
    pub fn secret(&self) -> [u8; 32] {
        self.0.to_secret_bytes()
    }
}

impl Signer for WalletSigner {
    fn account(&self) -> Address {
        address_of(&self.0.public_key())
    }
    fn session_key(&self) -> Option<SessionPublicKey> {
        None
    }
    fn sign(&self, chain: &ChainId, call: Call, nonce: u64, expires_at_ms: u64) -> SignedTx {
        SignedTx::by_wallet(&self.0, chain, call, nonce, expires_at_ms)
    }
}

/// An ed25519 key that acts for an account within its scope.
#[derive(Clone)]
pub struct SessionKeyPair(ed25519_zebra::SigningKey);

impl SessionKeyPair {
    key_files!();
    /// The key of these bytes; any bytes are one.
    pub fn from_secret(secret: [u8; 32]) -> Option<Self> {
        Some(Self(ed25519_zebra::SigningKey::from(secret)))
    }
    /// The secret itself; keep it so.
    pub fn secret(&self) -> [u8; 32] {
        self.0.to_bytes()
    }
    /// The public key that the account registers.
    pub fn public(&self) -> SessionPublicKey {
        SessionPublicKey(ed25519_zebra::VerificationKeyBytes::from(&self.0).into())
    }
    /// Signs any tagged message, such as a frame of a stream.
    pub fn sign_message(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// Checks a signature made by [`SessionKeyPair::sign_message`].
pub fn verify_message(key: &SessionPublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
    ed25519_zebra::VerificationKey::try_from(key.0)
        .is_ok_and(|key| key.verify(&ed25519_zebra::Signature::from_bytes(signature), message).is_ok())
}

/// A session key together with the account that registered it.
#[derive(Clone)]
pub struct SessionSigner {
    pub account: Address,
    pub key: SessionKeyPair,
}

impl Signer for SessionSigner {
    fn account(&self) -> Address {
        self.account
    }
    fn session_key(&self) -> Option<SessionPublicKey> {
        Some(self.key.public())
    }
    fn sign(&self, chain: &ChainId, call: Call, nonce: u64, expires_at_ms: u64) -> SignedTx {
        SignedTx::by_session(&self.key.0, self.account, chain, call, nonce, expires_at_ms)
    }
}

impl fmt::Debug for WalletSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WalletSigner({})", self.account())
    }
}

impl fmt::Debug for SessionKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKeyPair({})", self.public())
    }
}
