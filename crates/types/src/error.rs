//! Every way in which the ledger refuses a call. Numbering is append-only.

use crate::{Amount, AssetId, ModelId, OrderId, PoolId, ProposalState};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// Why a call left no trace but its receipt and its nonce.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "error", content = "detail", rename_all = "snake_case")]
pub enum LedgerError {
    #[error("insufficient balance: {needed} ALTH needed, {free} ALTH free")]
    InsufficientBalance { needed: Amount, free: Amount },
    #[error("the amount is zero")]
    ZeroAmount,
    #[error("an amount overflowed")]
    Overflow,
    #[error("unknown session key: add it with the account's wallet first")]
    UnknownSessionKey,
    #[error("this session key is registered already")]
    SessionKeyExists,
    #[error("an account may have at most {max} session keys")]
    TooManySessionKeys { max: u32 },
    #[error("the session key expired at {expired_at_ms} ms")]
    SessionKeyExpired { expired_at_ms: u64 },
    #[error("the session key's scope does not allow this call")]
    OutOfScope,
    #[error("the session key may spend {left} ALTH more, this call needs {needed} ALTH")]
    SpendLimit { needed: Amount, left: Amount },
    #[error("not a provider: bond first")]
    NotProvider,
    #[error("bond too small: {bond} ALTH unreserved, at least {min} ALTH needed for new work")]
    BondTooSmall { bond: Amount, min: Amount },
    #[error("only {available} ALTH of the bond are neither reserved nor unbonding")]
    BondReserved { available: Amount },
    #[error("at most {max} unbondings may wait at a time")]
    TooManyUnbondings { max: u32 },
    #[error("jailed until {until_ms} ms")]
    Jailed { until_ms: u64 },
    #[error("unknown model {0}")]
    UnknownModel(ModelId),
    #[error("the model exists already")]
    ModelExists,
    #[error("a model named {0:?} exists already")]
    ModelNameTaken(String),
    #[error("model names are 1 to 64 characters of a-z, 0-9, '-', '_', '.' and '/': {0:?}")]
    ModelNameInvalid(String),
    #[error("only the owner may do this")]
    NotOwner,
    #[error("at most {max} models may be supported at a time")]
    TooManyModels { max: u32 },
    #[error("an endpoint is a URL of at most 200 characters, starting with http:// or https://")]
    EndpointInvalid,
    #[error("the fee {fee} ALTH is less than the model's own fee {model_fee} ALTH")]
    FeeBelowModelFee { fee: Amount, model_fee: Amount },
    #[error("the fee {fee} ALTH is more than max_total {max_total} ALTH")]
    FeeAboveMaxTotal { fee: Amount, max_total: Amount },
    #[error("an inline input has at most {max} bytes, this one {got}: send it by CID")]
    InputTooLarge { max: u64, got: u64 },
    #[error("the deadline must lie between {min_ms} and {max_ms} ms")]
    DeadlineOutOfRange { min_ms: u64, max_ms: u64 },
    #[error("a seed must be below {max}")]
    SeedOutOfRange { max: u64 },
    #[error("at most {max} agreements can be asked for")]
    TooManyAgreementsWanted { max: u8 },
    #[error(
        "nobody can check the answers of a model without exact verification: no open lane, no agreements, no contests"
    )]
    NotVerifiable,
    #[error("the chosen provider does not serve this model")]
    ProviderNotServing,
    #[error("unknown order {0}")]
    UnknownOrder(OrderId),
    #[error("a chain of orders is at most {max} deep")]
    ParentTooDeep { max: u8 },
    #[error("only an order without a parent can set a budget aside")]
    BudgetNotAtRoot,
    #[error("a budget must stay open at least until its order's deadline at {min_ms} ms and at most until {max_ms} ms")]
    BudgetTimeOutOfRange { min_ms: u64, max_ms: u64 },
    #[error(
        "the chain's budget has {left} ALTH left, {needed} ALTH are needed: close it and pay yourself, or start another chain"
    )]
    BudgetExceeded { needed: Amount, left: Amount },
    #[error("there is no open budget of this account for this order")]
    NoBudget,
    #[error("this account was not drawn to fetch the order's input, or has confirmed it, or the time is over")]
    NotDrawn,
    #[error("the order is in another lane")]
    WrongLane,
    #[error("the order is {state}")]
    WrongState { state: String },
    #[error("the order is closed to new commitments")]
    ClosedToCommitments,
    #[error("the order's seed is not drawn yet")]
    SeedUnknown,
    #[error("the provider has an open commitment or solution for this order already")]
    CommitmentExists,
    #[error("the order has {max} commitments already")]
    TooManyCommitments { max: u32 },
    #[error("no commitment by this provider")]
    NoCommitment,
    #[error("reveals are accepted from the block after the commitment")]
    RevealTooEarly,
    #[error("the reveal does not match its commitment")]
    CommitmentMismatch,
    #[error("not the provider that the order names")]
    NotChosenProvider,
    #[error("not the client of this order")]
    NotClient,
    #[error("the order can be cancelled from {from_ms} ms on")]
    CancelTooEarly { from_ms: u64 },
    #[error("the order has no standing solution")]
    NoSolution,
    #[error("solvers and clients cannot do this on their own order")]
    OwnOrder,
    #[error("another output stands: {standing}")]
    OutputDiffers { standing: String },
    #[error("the provider agreed already")]
    AgreementExists,
    #[error("the order has {max} agreements already")]
    TooManyAgreements { max: u32 },
    #[error("the provider was not bonded before the solution appeared")]
    BondedTooLate,
    #[error("the challenge window closed")]
    WindowClosed,
    #[error("no dispute is open over this order")]
    NoCase,
    #[error("the voting period is over")]
    VotingOver,
    #[error("the provider voted already")]
    VoteExists,
    #[error("the case has {max} votes already")]
    TooManyVotes { max: u32 },
    #[error("a provider that agreed cannot contest")]
    AgreedBefore,
    #[error("wrong nonce: {expected} is next")]
    WrongNonce { expected: u64 },
    #[error("the transaction expired at {expired_at_ms} ms")]
    TransactionExpired { expired_at_ms: u64 },
    #[error("only governance may do this: make a proposal that does it")]
    NotGovernor,
    #[error("votes in this network are {form}: use {calls}")]
    WrongVoteForm { form: String, calls: String },
    #[error("the jury is not drawn yet: try again in the next block")]
    JuryNotDrawn,
    #[error("not a juror of this dispute")]
    NotJuror,
    #[error("the votes of this dispute are opened from {from_ms} ms of active time on")]
    OpeningNotBegun { from_ms: u64 },
    #[error("this vote is not committed, or opened already")]
    NoBallot,
    #[error("the answer and salt do not match the committed vote")]
    BallotMismatch,
    #[error("a vote says an output, or that the input cannot be had")]
    AnswerInvalid,
    #[error("claims run by themselves in this network, when the challenge window ends")]
    ClaimsRunThemselves,
    #[error("the challenge window ends at {claim_at_ms} ms of active time")]
    WindowOpen { claim_at_ms: u64 },
    #[error("while bonds are not required, only the providers that the genesis names may vote")]
    NotBootstrapVoter,
    #[error("no such delegation")]
    NoDelegation,
    #[error("only {available} ALTH are delegated")]
    DelegationTooSmall { available: Amount },
    #[error("at most {max} parts of a delegation may be leaving at a time")]
    TooManyUndelegations { max: u32 },
    #[error("the amount is too small for one share")]
    AmountTooSmall,
    #[error("a provider cannot delegate to itself: bond instead")]
    DelegationToSelf,
    #[error("the base fee of {fee} ALTH cannot be paid from {free} ALTH: send tokens to the account first")]
    BaseFeeUnpayable { fee: Amount, free: Amount },
    #[error("the deposit of {deposit} ALTH, which comes back later, cannot be paid from {free} ALTH")]
    DepositUnpayable { deposit: Amount, free: Amount },
    #[error("the block is full: send it again")]
    BlockFull,
    #[error("the treasury and the coordinators' account never vote")]
    NeverVotes,
    #[error("a proposal's title has 1 to {max} bytes")]
    ProposalTitleInvalid { max: u32 },
    #[error("a proposal's description has at most {max} bytes")]
    ProposalDescriptionTooLong { max: u32 },
    #[error("a proposal has 1 to {max} calls")]
    ProposalCallsInvalid { max: u32 },
    #[error("call {index} of the proposal, {call}, cannot be made by proposal")]
    ProposalCallForbidden { index: u32, call: String },
    #[error("a proposer must command {needed} votes, this one has {power}")]
    ProposalThreshold { power: Amount, needed: Amount },
    #[error("the proposer's proposal {proposal} is not over yet")]
    ProposalLive { proposal: u64 },
    #[error("at most {max} proposals may be pending or active at a time")]
    TooManyProposals { max: u32 },
    #[error("unknown proposal {proposal}")]
    UnknownProposal { proposal: u64 },
    #[error("the proposal is {}", .state.name())]
    ProposalIs { state: ProposalState },
    #[error("this account voted on the proposal already")]
    ProposalVoted,
    #[error("this account commanded no votes at height {height}, before the proposal")]
    NoVotingPower { height: u64 },
    #[error("the proposal's timelock ends at {from_ms} ms")]
    TimelockRunning { from_ms: u64 },
    #[error("only the proposer may do this while it commands {needed} votes; it has {power}")]
    ProposerHasPower { power: Amount, needed: Amount },
    #[error("nothing was done, since call {index} of the proposal failed: {reason}")]
    ProposalCallFailed { index: u32, reason: Box<LedgerError> },
    #[error("the parameters cannot be changed so: {reason}")]
    ParamsRefused { reason: String },
    #[error("version {version} cannot follow version {in_force}, which is in force")]
    UpgradeVersionInvalid { version: u32, in_force: u32 },
    #[error("an upgrade needs a height above {height}")]
    UpgradeHeightPassed { height: u64 },
    #[error("version {version} is scheduled for height {height} already: cancel that first")]
    UpgradeScheduledAlready { version: u32, height: u64 },
    #[error("no upgrade is scheduled")]
    NoUpgrade,
    #[error("insufficient balance: {} needed, {} free", .asset.amount(*.needed), .asset.amount(*.free))]
    InsufficientAsset { asset: AssetId, needed: Amount, free: Amount },
    #[error("the model is a DAO already")]
    DaoExists,
    #[error("the model is no DAO")]
    NoDao,
    #[error("the model is a DAO: its holders vote on its terms")]
    ModelIsDao,
    #[error("a DAO has 1 to {max} shares")]
    SharesOutOfRange { max: u64 },
    #[error("no shares of this model count for this account")]
    NotShareholder,
    #[error("only {available} shares are free or on sale")]
    NotEnoughShares { available: u64 },
    #[error("this account has no shares of this model on sale")]
    NoSale,
    #[error("only {left} shares are on sale")]
    SaleTooSmall { left: u64 },
    #[error("the shares cost {total} ALTH, more than max_total {max_total} ALTH")]
    SharesAboveMaxTotal { total: Amount, max_total: Amount },
    #[error("a proposal is open until {ends_ms} ms: one at a time")]
    DaoProposalOpen { ends_ms: u64 },
    #[error("no proposal is open for this model")]
    NoDaoProposal,
    #[error("this account voted on the proposal already")]
    DaoVoteExists,
    #[error("a pool lies between two different assets")]
    SameAsset,
    #[error("no such pool: {0}")]
    UnknownPool(PoolId),
    #[error("a new pool needs more: the square root of the product of its amounts must be above {min} base units")]
    PoolTooSmall { min: Amount },
    #[error("only {} would come out, at least {} asked for", .asset.amount(*.out), .asset.amount(*.min))]
    BelowMinimum { asset: AssetId, out: Amount, min: Amount },
    #[error("only {staked} liquidity shares are staked")]
    StakeTooSmall { staked: Amount },
    #[error("at most {max} pools share the liquidity drip")]
    TooManyDripPools { max: u32 },
    #[error("there is nothing to claim")]
    NothingToClaim,
    #[error("the input's source is refused: {reason}")]
    SourceInvalid { reason: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_error_survives_json() {
        for error in [
            LedgerError::ZeroAmount,
            LedgerError::UnknownModel(ModelId([1; 32])),
            LedgerError::ModelNameTaken("fox".into()),
            LedgerError::InsufficientBalance { needed: Amount(u128::MAX), free: Amount(1) },
        ] {
            let text = serde_json::to_string(&error).unwrap();
            assert_eq!(serde_json::from_str::<LedgerError>(&text).unwrap(), error, "{text}");
        }
    }

    #[test]
    fn errors_about_assets_name_them_and_count_shares() {
        // G-4, T-14
        let model = ModelId([1; 32]);
        let asset = AssetId::Shares(model);
        let short = LedgerError::InsufficientAsset { asset, needed: Amount(5), free: Amount(4) };
        let shares = |count| format!("{count} shares of model {model}");
        assert_eq!(short.to_string(), format!("insufficient balance: {} needed, {} free", shares(5), shares(4)));
        let below = LedgerError::BelowMinimum { asset: AssetId::Native, out: Amount::TOKEN, min: Amount::tokens(2) };
        assert_eq!(below.to_string(), "only 1 ALTH would come out, at least 2 ALTH asked for");
    }
}
