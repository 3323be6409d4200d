//! What a provider promises in the open lane: a hash that hides its answer and binds everything that
//! could be swapped. (T-3)

use crate::{Address, BallotAnswer, ChainId, Cid, Hash, OrderId, encode};

/// H(tag ‖ chain ‖ order ‖ provider ‖ output CID ‖ output size ‖ salt).
///
/// `salt` must be random: without it, whoever guesses the answer could check the guess.
pub fn commitment_hash(
    chain: &ChainId,
    order: &OrderId,
    provider: &Address,
    output: &Cid,
    output_size: u64,
    salt: &Hash,
) -> Hash {
    Hash::of(&[
        b"althing/commit/v1",
        chain.as_bytes(),
        order.as_bytes(),
        provider.as_bytes(),
        &encode(output),
        &output_size.to_be_bytes(),
        salt.as_bytes(),
    ])
}

/// H(tag ‖ chain ‖ order ‖ round ‖ voter ‖ answer ‖ salt): a vote that nobody can copy before it is
/// opened. (T-7)
pub fn ballot_hash(
    chain: &ChainId,
    order: &OrderId,
    round: u8,
    voter: &Address,
    answer: &BallotAnswer,
    salt: &Hash,
) -> Hash {
    Hash::of(&[
        b"althing/ballot/v1",
        chain.as_bytes(),
        order.as_bytes(),
        &[round],
        voter.as_bytes(),
        &encode(answer),
        salt.as_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_changes_the_hash() {
        let cid = |bytes: &[u8]| althing_content::file_cid(bytes);
        let hash = |chain, order, provider, output: &Cid, size, salt| {
            commitment_hash(
                &ChainId([chain; 32]),
                &OrderId([order; 32]),
                &Address([provider; 20]),
                output,
                size,
                &Hash([salt; 32]),
            )
        };
        let base = hash(1, 2, 3, &cid(b"a"), 4, 5);
        for other in [
            hash(9, 2, 3, &cid(b"a"), 4, 5),
            hash(1, 9, 3, &cid(b"a"), 4, 5),
            hash(1, 2, 9, &cid(b"a"), 4, 5),
            hash(1, 2, 3, &cid(b"b"), 4, 5),
            hash(1, 2, 3, &cid(b"a"), 9, 5),
            hash(1, 2, 3, &cid(b"a"), 4, 9),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn every_field_changes_a_ballot() {
        let cid = |bytes: &[u8]| BallotAnswer::Output { output: althing_content::file_cid(bytes) };
        let hash = |chain, order, round, voter, answer: &BallotAnswer, salt| {
            let (chain, order, voter) = (ChainId([chain; 32]), OrderId([order; 32]), Address([voter; 20]));
            ballot_hash(&chain, &order, round, &voter, answer, &Hash([salt; 32]))
        };
        let base = hash(1, 2, 0, 3, &cid(b"a"), 5);
        for other in [
            hash(9, 2, 0, 3, &cid(b"a"), 5),
            hash(1, 9, 0, 3, &cid(b"a"), 5),
            hash(1, 2, 1, 3, &cid(b"a"), 5),
            hash(1, 2, 0, 9, &cid(b"a"), 5),
            hash(1, 2, 0, 3, &cid(b"b"), 5),
            hash(1, 2, 0, 3, &BallotAnswer::InputUnavailable, 5),
            hash(1, 2, 0, 3, &cid(b"a"), 9),
        ] {
            assert_ne!(base, other);
        }
    }
}
