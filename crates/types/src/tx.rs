//! Transactions: a call plus nonce and expiry, authorised by a wallet or by a session key.
//!
//! - A **wallet** signs EIP-712 typed data, one flat type
//!   `Transaction(string summary,bytes call,uint64 nonce,uint64 expiry)`, whose domain carries the
//!   chain id as salt. `summary` is [`Call::summary`], recomputed here, so what a person reads is
//!   what happens. Signatures are secp256k1 with low s only.
//! - A **session key** signs a tagged message with ed25519. One acceptance rule holds for single
//!   and batch verification: ZIP-215.
//!
//! The chain id is in what is signed, never in the transaction itself.

use crate::{Address, Amount, Call, ChainId, Event, Hash, LedgerError, Params, SessionPublicKey, TxId, encode};
use borsh::{BorshDeserialize, BorshSerialize};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use serde::{Deserialize, Serialize};
use sha3::{Digest as _, Keccak256};

/// The largest encoded transaction, bytes.
pub const TX_BYTES_MAX: usize = 16 * 1024;

/// Who authorised a transaction, and how.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Auth {
    /// r ‖ s ‖ recovery id (0 or 1), by the account's own key.
    Wallet { account: Address, signature: [u8; 65] },
    /// ed25519, by a key that the account registered.
    Session { account: Address, key: SessionPublicKey, signature: [u8; 64] },
}

/// A call as it travels and as blocks carry it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedTx {
    pub call: Call,
    pub nonce: u64,
    /// Block time from which the transaction is no longer valid, ms since the Unix epoch.
    pub expires_at_ms: u64,
    pub auth: Auth,
}

/// Why a transaction is not one, whatever the state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    #[error("transaction of {got} bytes, at most {TX_BYTES_MAX} are allowed")]
    TooLarge { got: usize },
    #[error("not a transaction: {0}")]
    Malformed(String),
    #[error("the signature is not by {account} for this chain")]
    BadSignature { account: Address },
    #[error("the signature's s value is high; only the low form is accepted")]
    HighS,
}

/// What became of a transaction: part of the block that included it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct TxReceipt {
    pub id: TxId,
    pub sender: Address,
    pub call: String,
    /// What was paid for it, whether it was executed or not. (L-1)
    pub fee: Amount,
    /// `None` if the call was executed, the reason if it left no trace.
    pub error: Option<LedgerError>,
    /// The order that the call opened, for `order_submit`.
    pub order: Option<crate::OrderId>,
    /// What the call did, in order.
    pub events: Vec<Event>,
}

fn keccak(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Keccak256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// A `uint64` as one EIP-712 word.
fn word(value: u64) -> [u8; 32] {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&value.to_be_bytes());
    word
}

/// The EIP-712 digest that a wallet signs for a call.
pub fn eip712_digest(chain: &ChainId, call: &Call, nonce: u64, expires_at_ms: u64) -> [u8; 32] {
    let domain = keccak(&[
        &keccak(&[b"EIP712Domain(string name,string version,bytes32 salt)"]),
        &keccak(&[b"Althing"]),
        &keccak(&[b"1"]),
        chain.as_bytes(),
    ]);
    let message = keccak(&[
        &keccak(&[b"Transaction(string summary,bytes call,uint64 nonce,uint64 expiry)"]),
        &keccak(&[call.summary().as_bytes()]),
        &keccak(&[&encode(call)]),
        &word(nonce),
        &word(expires_at_ms),
    ]);
    keccak(&[b"\x19\x01", &domain, &message])
}

/// The message that a session key signs for a call.
pub fn session_message(chain: &ChainId, account: &Address, call: &Call, nonce: u64, expires_at_ms: u64) -> Vec<u8> {
    let digest = Hash::of(&[
        chain.as_bytes(),
        account.as_bytes(),
        &nonce.to_be_bytes(),
        &expires_at_ms.to_be_bytes(),
        &encode(call),
    ]);
    [b"althing/session-tx/v1".as_slice(), digest.as_bytes()].concat()
}

/// The account of a secp256k1 public key.
pub fn address_of(key: &secp256k1::PublicKey) -> Address {
    let digest = keccak(&[&key.serialize_uncompressed()[1..]]);
    let mut address = [0; 20];
    address.copy_from_slice(&digest[12..]);
    Address(address)
}

impl SignedTx {
    /// Signs a call with an account's wallet key.
    pub fn by_wallet(key: &secp256k1::SecretKey, chain: &ChainId, call: Call, nonce: u64, expires_at_ms: u64) -> Self {
        let digest = secp256k1::Message::from_digest(eip712_digest(chain, &call, nonce, expires_at_ms));
        // libsecp256k1 signs deterministically (RFC 6979) and always in the low-s form.
        let (recovery_id, compact) = RecoverableSignature::sign_ecdsa_recoverable(digest, key).serialize_compact();
        let mut signature = [0; 65];
        signature[..64].copy_from_slice(&compact);
        signature[64] = recovery_id.to_u8();
        Self { call, nonce, expires_at_ms, auth: Auth::Wallet { account: address_of(&key.public_key()), signature } }
    }

    /// Signs a call with a session key of `account`.
    pub fn by_session(
        key: &ed25519_zebra::SigningKey,
        account: Address,
        chain: &ChainId,
        call: Call,
        nonce: u64,
        expires_at_ms: u64,
    ) -> Self {
        let signature = key.sign(&session_message(chain, &account, &call, nonce, expires_at_ms)).to_bytes();
        let key = SessionPublicKey(ed25519_zebra::VerificationKeyBytes::from(key).into());
        Self { call, nonce, expires_at_ms, auth: Auth::Session { account, key, signature } }
    }

    /// The account that the transaction acts for.
    pub fn sender(&self) -> Address {
        match self.auth {
            Auth::Wallet { account, .. } | Auth::Session { account, .. } => account,
        }
    }

    /// The transaction's id: a hash of all that is signed and of the signer, not of the signature.
    pub fn id(&self, chain: &ChainId) -> TxId {
        let signer = match &self.auth {
            Auth::Wallet { account, .. } => encode(&(0u8, account)),
            Auth::Session { account, key, .. } => encode(&(1u8, account, key)),
        };
        TxId(
            Hash::of(&[
                b"althing/tx/v1",
                chain.as_bytes(),
                &signer,
                &self.nonce.to_be_bytes(),
                &self.expires_at_ms.to_be_bytes(),
                &encode(&self.call),
            ])
            .0,
        )
    }

    /// What the ledger takes for it, by its bytes and by what its call makes every node do. (L-1)
    pub fn base_fee(&self, params: &Params) -> Amount {
        let part = |each: Amount, count: u64| each.0.saturating_mul(u128::from(count));
        let bytes = part(params.base_fee_byte, encode(self).len() as u64);
        Amount(bytes.saturating_add(part(params.base_fee_unit, self.call.units())))
    }

    /// Decodes a transaction as it came from outside.
    ///
    /// # Errors
    /// [`TxError::TooLarge`] or [`TxError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, TxError> {
        if bytes.len() > TX_BYTES_MAX {
            return Err(TxError::TooLarge { got: bytes.len() });
        }
        crate::decode(bytes).map_err(|error| TxError::Malformed(error.to_string()))
    }

    /// Checks the signature alone; whether a session key is registered is the ledger's business.
    ///
    /// # Errors
    /// [`TxError::HighS`] or [`TxError::BadSignature`].
    pub fn verify(&self, chain: &ChainId) -> Result<(), TxError> {
        match &self.auth {
            Auth::Wallet { account, signature } => self.verify_wallet(chain, account, signature),
            Auth::Session { .. } => {
                let (key, signature, message) = self.session_parts(chain).expect("a session transaction has them");
                ed25519_zebra::VerificationKey::try_from(key)
                    .and_then(|key| key.verify(&signature, &message))
                    .map_err(|_| TxError::BadSignature { account: self.sender() })
            }
        }
    }

    fn verify_wallet(&self, chain: &ChainId, account: &Address, signature: &[u8; 65]) -> Result<(), TxError> {
        let bad = TxError::BadSignature { account: *account };
        if signature[64] > 1 {
            return Err(bad);
        }
        let recovery_id = RecoveryId::from_u8_masked(signature[64]);
        let recoverable = RecoverableSignature::from_compact(&signature[..64], recovery_id).map_err(|_| bad.clone())?;
        let standard = recoverable.to_standard();
        let mut low = standard;
        low.normalize_s();
        if low != standard {
            return Err(TxError::HighS);
        }
        let digest = eip712_digest(chain, &self.call, self.nonce, self.expires_at_ms);
        let key = recoverable.recover_ecdsa(secp256k1::Message::from_digest(digest)).map_err(|_| bad.clone())?;
        if address_of(&key) == *account { Ok(()) } else { Err(bad) }
    }

    fn session_parts(
        &self,
        chain: &ChainId,
    ) -> Option<(ed25519_zebra::VerificationKeyBytes, ed25519_zebra::Signature, Vec<u8>)> {
        match &self.auth {
            Auth::Wallet { .. } => None,
            Auth::Session { account, key, signature } => Some((
                key.0.into(),
                ed25519_zebra::Signature::from_bytes(signature),
                session_message(chain, account, &self.call, self.nonce, self.expires_at_ms),
            )),
        }
    }
}

/// Checks the signatures of many transactions, those of session keys in one batch.
///
/// Accepts exactly what [`SignedTx::verify`] accepts: if the batch fails, each is checked alone.
/// `rng` only blinds the batch equation; it cannot change a verdict beyond 2^-128.
///
/// # Errors
/// The position of the first transaction that is not valid, and why.
pub fn verify_all(txs: &[SignedTx], chain: &ChainId, rng: impl rand_core::CryptoRng) -> Result<(), (usize, TxError)> {
    let mut batch = ed25519_zebra::batch::Verifier::new();
    let mut messages = Vec::with_capacity(txs.len());
    for (position, tx) in txs.iter().enumerate() {
        match tx.session_parts(chain) {
            None => tx.verify(chain).map_err(|error| (position, error))?,
            Some(parts) => messages.push(parts),
        }
    }
    for (key, signature, message) in &messages {
        batch.queue((*key, *signature, message));
    }
    if batch.verify(rng).is_ok() {
        return Ok(());
    }
    for (position, tx) in txs.iter().enumerate() {
        tx.verify(chain).map_err(|error| (position, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Amount;

    const CHAIN: ChainId = ChainId([7; 32]);

    fn transfer() -> Call {
        Call::Transfer { to: Address([1; 20]), amount: Amount::tokens(5) }
    }
    fn wallet() -> secp256k1::SecretKey {
        secp256k1::SecretKey::from_secret_bytes([11; 32]).unwrap()
    }
    fn session() -> ed25519_zebra::SigningKey {
        ed25519_zebra::SigningKey::from([12; 32])
    }
    fn by_session() -> SignedTx {
        SignedTx::by_session(&session(), Address([2; 20]), &CHAIN, transfer(), 3, 99)
    }

    #[test]
    fn a_wallet_signature_names_its_account_and_binds_everything() {
        let tx = SignedTx::by_wallet(&wallet(), &CHAIN, transfer(), 3, 99);
        assert_eq!(tx.verify(&CHAIN), Ok(()));
        let bad = Err(TxError::BadSignature { account: tx.sender() });
        assert_eq!(tx.verify(&ChainId([8; 32])), bad);
        assert_eq!(SignedTx { nonce: 4, ..tx.clone() }.verify(&CHAIN), bad);
        assert_eq!(SignedTx { expires_at_ms: 1, ..tx.clone() }.verify(&CHAIN), bad);
        let call = Call::Transfer { to: Address([1; 20]), amount: Amount::tokens(6) };
        assert_eq!(SignedTx { call, ..tx }.verify(&CHAIN), bad);
    }

    #[test]
    fn a_high_s_signature_is_refused() {
        let mut tx = SignedTx::by_wallet(&wallet(), &CHAIN, transfer(), 3, 99);
        let Auth::Wallet { signature, .. } = &mut tx.auth else { panic!("signed by a wallet") };
        // n − s is the other valid s of the same signature.
        let order = ruint::aliases::U256::from_be_bytes(secp256k1::constants::CURVE_ORDER);
        let s = ruint::aliases::U256::from_be_slice(&signature[32..64]);
        signature[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
        signature[64] ^= 1;
        assert_eq!(tx.verify(&CHAIN), Err(TxError::HighS));
    }

    #[test]
    fn a_session_signature_binds_everything() {
        let tx = by_session();
        assert_eq!(tx.verify(&CHAIN), Ok(()));
        let bad = Err(TxError::BadSignature { account: tx.sender() });
        assert_eq!(SignedTx { nonce: 4, ..tx.clone() }.verify(&CHAIN), bad);
        assert_eq!(tx.verify(&ChainId([8; 32])), bad);
    }

    #[test]
    fn batch_verification_finds_the_bad_one_and_accepts_what_single_verification_accepts() {
        let good: Vec<_> = (0..8)
            .map(|n| SignedTx::by_session(&session(), Address([2; 20]), &CHAIN, transfer(), n, 99))
            .chain([SignedTx::by_wallet(&wallet(), &CHAIN, transfer(), 3, 99)])
            .collect();
        let rng = || rand_chacha::ChaCha20Rng::from_seed([1; 32]);
        use rand_core::SeedableRng as _;
        assert_eq!(verify_all(&good, &CHAIN, rng()), Ok(()));
        let mut bad = good;
        bad[5].nonce = 77;
        let error = TxError::BadSignature { account: Address([2; 20]) };
        assert_eq!(verify_all(&bad, &CHAIN, rng()), Err((5, error)));
    }

    #[test]
    fn small_order_keys_get_the_same_verdict_alone_and_in_a_batch() {
        // ZIP-215 accepts small-order points: with key and R the identity and s = 0 the equation
        // holds for every message. What matters is that both paths agree.
        let mut identity = [0u8; 32];
        identity[0] = 1;
        let mut signature = [0u8; 64];
        signature[..32].copy_from_slice(&identity);
        let auth = Auth::Session { account: Address([2; 20]), key: SessionPublicKey(identity), signature };
        let tx = SignedTx { auth, ..by_session() };
        use rand_core::SeedableRng as _;
        let batch = verify_all(&[tx.clone(), by_session()], &CHAIN, rand_chacha::ChaCha20Rng::from_seed([1; 32]));
        assert_eq!(tx.verify(&CHAIN).is_ok(), batch.is_ok());
    }

    #[test]
    fn encoding_and_digests_are_pinned() {
        let tx = SignedTx::by_wallet(&wallet(), &CHAIN, transfer(), 3, 99);
        let bytes = encode(&tx);
        assert_eq!(SignedTx::decode(&bytes), Ok(tx.clone()));
        let pinned = (Hash::of(&[&bytes]).to_string(), hex::encode(eip712_digest(&CHAIN, &tx.call, 3, 99)));
        assert_eq!(pinned.0, PINNED_TX, "the encoding of transactions changed");
        assert_eq!(pinned.1, PINNED_EIP712, "what wallets sign changed");
        assert!(SignedTx::decode(&[bytes, vec![0]].concat()).is_err(), "trailing bytes are refused");
        assert!(matches!(SignedTx::decode(&vec![0; TX_BYTES_MAX + 1]), Err(TxError::TooLarge { .. })));
    }

    const PINNED_TX: &str = "55eaa91fbd3e9fed5f16ab7b48aff10dc9a04da992b72ac073e56c5ca6f870a0";
    const PINNED_EIP712: &str = "8bd160d7c0c62630a11f22d6a2d1c2f67534b7b47c10b6a7f280ebafdde78c76";

    /// Made with the Python package `eth-account` from the same key and typed data.
    #[test]
    fn a_common_wallet_library_gives_the_same_signature() {
        let tx = SignedTx::by_wallet(&wallet(), &CHAIN, transfer(), 3, 99);
        assert_eq!(tx.sender().to_string(), "0xf288ecaf15790efcac528946963a6db8c3f8211d");
        let Auth::Wallet { signature, .. } = tx.auth else { panic!("signed by a wallet") };
        assert_eq!(
            hex::encode(&signature[..64]),
            "172b9c648b287dc8d8f3629e5986d1bd3936a08f493927066c67826dc802db8a\
             40dacc68f51ccbe4b0fb97d1867f9297d11271e2c5b0dc4fdbe95cc8ecf6d0a1"
        );
        assert_eq!(signature[64], 1, "v = 28 is recovery id 1");
    }
}
