//! Committed votes: what a juror sends twice. (T-7)

use althing_types::{Address, BallotAnswer, Call, ChainId, Hash, OrderId, commitment::ballot_hash};

/// A vote in a dispute with committed votes.
///
/// Its salt is derived from a secret of the voter, so that nobody else can know it, and nothing
/// needs to be kept to open the vote later: whoever has the secret and the answer can.
#[derive(Clone, Debug)]
pub struct Ballot {
    order: OrderId,
    answer: BallotAnswer,
    salt: Hash,
    hash: Hash,
}

impl Ballot {
    /// The vote of `voter` in round `round` of the dispute over `order`.
    pub fn new(
        chain: &ChainId,
        order: &OrderId,
        round: u8,
        voter: &Address,
        answer: BallotAnswer,
        secret: &[u8; 32],
    ) -> Self {
        let tag = b"althing/ballot-salt/v1".as_slice();
        let salt = Hash::of(&[tag, secret, chain.as_bytes(), order.as_bytes(), &[round]]);
        Self { order: *order, answer, salt, hash: ballot_hash(chain, order, round, voter, &answer, &salt) }
    }
    /// What is committed to: the contester sends it with its contest.
    pub fn hash(&self) -> Hash {
        self.hash
    }
    /// The call that commits.
    pub fn commit(&self) -> Call {
        Call::VoteCommit { order: self.order, ballot: self.hash }
    }
    /// The call that opens.
    pub fn open(&self) -> Call {
        Call::VoteOpen { order: self.order, answer: self.answer, salt: self.salt }
    }
}
