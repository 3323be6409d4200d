//! How a provider delivers a chosen order straight to its client: a signed request, then signed
//! frames, one JSON line each, while the model runs.
//!
//! Both directions are authenticated by session keys that the ledger knows; nothing in a stream is
//! taken from anyone else. Each frame's signature covers the hash chain of all frames before it, so
//! none can be dropped, swapped or added; the last one states the output, as the ledger does.

use crate::keys::{SessionKeyPair, verify_message};
use althing_types::{Address, ChainId, Cid, Hash, OrderId, SessionPublicKey, encode, object::hex_bytes};
use serde::{Deserialize, Serialize};

/// How far apart the clocks of client and provider may be, ms: an older request is refused, so that
/// a recorded one is of no use later.
pub const REQUEST_AGE_MS_MAX: u64 = 60_000;

/// What a client posts to `{endpoint}/v1/deliveries/{order}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRequest {
    /// The client's session key.
    pub key: SessionPublicKey,
    pub time_ms: u64,
    /// The input itself: on the ledger stands only its CID.
    #[serde(with = "hex_bytes")]
    pub input: Vec<u8>,
    #[serde(with = "hex_bytes")]
    pub signature: Vec<u8>,
}

impl DeliveryRequest {
    fn message(chain: &ChainId, order: &OrderId, time_ms: u64, input: &[u8]) -> Hash {
        Hash::of(&[
            b"althing/delivery-request/v1",
            chain.as_bytes(),
            order.as_bytes(),
            &time_ms.to_be_bytes(),
            Hash::of(&[input]).as_bytes(),
        ])
    }

    /// A request signed by the client's key.
    pub fn sign(key: &SessionKeyPair, chain: &ChainId, order: &OrderId, time_ms: u64, input: Vec<u8>) -> Self {
        let signature = key.sign_message(Self::message(chain, order, time_ms, &input).as_bytes()).to_vec();
        Self { key: key.public(), time_ms, input, signature }
    }

    /// Whether the named key signed it. That the key is the client's, the ledger says.
    pub fn verify(&self, chain: &ChainId, order: &OrderId) -> bool {
        let message = Self::message(chain, order, self.time_ms, &self.input);
        self.signature.as_slice().try_into().is_ok_and(|s| verify_message(&self.key, message.as_bytes(), s))
    }
}

/// One step of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case")]
pub enum Frame {
    /// The next piece of the answer's text, as soon as the model made it.
    Text { text: String },
    /// The answer is complete: what the provider states on the ledger as well.
    Done {
        output: Cid,
        #[serde(with = "hex_bytes")]
        output_bytes: Vec<u8>,
    },
    /// The provider gives up; nothing will be charged.
    Failed {
        reason: FailureReason,
        /// What the model's server calls it, for clients.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        message: String,
    },
}

/// Why a provider gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The input cannot be answered, by whomever.
    Refused,
    /// It has too much to do.
    Busy,
    /// The model is out of its reach at the moment.
    Unavailable,
    /// The run did not come to an end.
    Failed,
}

/// A frame on the wire: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedFrame {
    #[serde(flatten)]
    pub frame: Frame,
    pub key: SessionPublicKey,
    #[serde(with = "hex_bytes")]
    pub signature: Vec<u8>,
}

/// What the signature of a stream's last frame states: `output` was delivered for `order` at the end
/// of the stream with this transcript. Whoever keeps it can show it.
pub fn delivery_message(chain: &ChainId, order: &OrderId, output: &Cid, transcript: &Hash) -> Hash {
    Hash::of(&[b"althing/delivery/v1", chain.as_bytes(), order.as_bytes(), &encode(output), transcript.as_bytes()])
}

/// The hash chain of one stream, kept by both ends.
#[derive(Clone, Debug)]
pub struct Transcript {
    chain: ChainId,
    order: OrderId,
    hash: Hash,
}

/// A frame that is not the provider's next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of the delivery is not signed by the provider's key as the next of this stream")]
pub struct FrameInvalid;

impl Transcript {
    /// The start of the stream of `order` from `provider`.
    pub fn new(chain: ChainId, order: OrderId, provider: Address) -> Self {
        let hash = Hash::of(&[b"althing/delivery-stream/v1", chain.as_bytes(), order.as_bytes(), provider.as_bytes()]);
        Self { chain, order, hash }
    }

    /// The hash over all frames so far.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Adds a frame; returns what its signature covers.
    fn advance(&mut self, frame: &Frame) -> Hash {
        let (kind, body) = match frame {
            Frame::Text { text } => (0, Hash::of(&[text.as_bytes()])),
            Frame::Done { output_bytes, .. } => (1, Hash::of(&[output_bytes])),
            Frame::Failed { reason, code, message } => {
                let code = code.as_deref().unwrap_or_default();
                (2, Hash::of(&[&[*reason as u8], Hash::of(&[code.as_bytes()]).as_bytes(), message.as_bytes()]))
            }
        };
        self.hash = Hash::of(&[b"althing/delivery-frame/v1", self.hash.as_bytes(), &[kind], body.as_bytes()]);
        match frame {
            Frame::Done { output, .. } => delivery_message(&self.chain, &self.order, output, &self.hash),
            _ => self.hash,
        }
    }

    /// Signs the next frame.
    pub fn sign(&mut self, key: &SessionKeyPair, frame: Frame) -> SignedFrame {
        let message = self.advance(&frame);
        SignedFrame { frame, key: key.public(), signature: key.sign_message(message.as_bytes()).to_vec() }
    }

    /// Checks the next frame.
    ///
    /// # Errors
    /// [`FrameInvalid`]; the stream is of no more use then.
    pub fn verify(&mut self, signed: &SignedFrame) -> Result<(), FrameInvalid> {
        let message = self.advance(&signed.frame);
        let signature = signed.signature.as_slice().try_into().map_err(|_| FrameInvalid)?;
        if verify_message(&signed.key, message.as_bytes(), signature) { Ok(()) } else { Err(FrameInvalid) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid() -> Cid {
        althing_content::file_cid(b"ab")
    }

    #[test]
    fn a_dropped_swapped_or_foreign_frame_is_noticed() {
        let (key, other) = (SessionKeyPair::random(), SessionKeyPair::random());
        let start = Transcript::new(ChainId([1; 32]), OrderId([2; 32]), Address([3; 20]));
        let text = |text: &str| Frame::Text { text: text.into() };
        let mut sender = start.clone();
        let frames = [
            sender.sign(&key, text("a")),
            sender.sign(&key, text("b")),
            sender.sign(&key, Frame::Done { output: cid(), output_bytes: b"ab".to_vec() }),
        ];
        let check = |frames: &[&SignedFrame]| {
            let mut receiver = start.clone();
            frames.iter().try_for_each(|frame| receiver.verify(frame))
        };
        assert_eq!(check(&[&frames[0], &frames[1], &frames[2]]), Ok(()));
        assert_eq!(check(&[&frames[1]]), Err(FrameInvalid), "dropped");
        assert_eq!(check(&[&frames[0], &frames[2]]), Err(FrameInvalid), "dropped before the end");
        let failed = |reason, code: Option<&str>| {
            let frame = Frame::Failed { reason, code: code.map(str::to_owned), message: "x".into() };
            start.clone().sign(&key, frame)
        };
        let refused = failed(FailureReason::Refused, Some("y"));
        assert_eq!(check(&[&refused]), Ok(()));
        for other in [failed(FailureReason::Busy, Some("y")), failed(FailureReason::Refused, None)] {
            assert_eq!(check(&[&SignedFrame { frame: other.frame, ..refused.clone() }]), Err(FrameInvalid), "reason");
        }
        let mut foreign = start.clone();
        let mut changed = foreign.sign(&other, text("a"));
        changed.key = key.public();
        assert_eq!(check(&[&changed]), Err(FrameInvalid), "another key");
    }

    #[test]
    fn a_request_is_bound_to_order_time_and_input() {
        let key = SessionKeyPair::random();
        let (chain, order) = (ChainId([1; 32]), OrderId([2; 32]));
        let request = DeliveryRequest::sign(&key, &chain, &order, 5, b"hi".to_vec());
        assert!(request.verify(&chain, &order));
        assert!(!request.verify(&chain, &OrderId([3; 32])));
        assert!(!DeliveryRequest { time_ms: 6, ..request.clone() }.verify(&chain, &order));
        assert!(!DeliveryRequest { input: b"ho".to_vec(), ..request }.verify(&chain, &order));
    }
}
