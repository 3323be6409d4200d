//! The nouns of the economy: delegations, proposals, votes, model DAOs, assets, pools, and any call.

use crate::cli::{NodeUrl, Wallet};
use althing_types::{Address, Amount, AssetId, VoteChoice};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum DelegationCommand {
    /// Stake tokens behind a provider for a share of what it earns. It can lose them if it lies.
    Add {
        provider: Address,
        /// Tokens, such as 1.5.
        amount: Amount,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Start to take a delegation back; it can be slashed until it is free.
    Remove {
        provider: Address,
        /// Tokens; all of it if absent.
        amount: Option<Amount>,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Move a delegation to another provider once it may leave the first.
    Move {
        from: Address,
        to: Address,
        /// Tokens; all of it if absent.
        amount: Option<Amount>,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Collect what a delegation earned.
    Claim {
        provider: Address,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// List what an account delegated, or what a provider has.
    #[command(group(ArgGroup::new("whose").required(true)))]
    List {
        /// What this account delegated.
        #[arg(long, group = "whose", value_name = "ADDRESS")]
        by: Option<Address>,
        /// What is delegated to this provider.
        #[arg(long, group = "whose", value_name = "ADDRESS")]
        to: Option<Address>,
        #[command(flatten)]
        node: NodeUrl,
    },
}

#[derive(Debug, Subcommand)]
pub enum ProposalCommand {
    /// List proposals, newest first.
    List {
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Print a proposal: what it would do, and how the vote stands.
    Show {
        proposal: u64,
        /// How this account voted, too.
        #[arg(long, value_name = "ADDRESS")]
        voter: Option<Address>,
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Propose calls that the governor is to make. Title, description and calls are public for ever.
    Create(Box<ProposalCreateArgs>),
    /// Vote with the power that you had before the proposal. Votes are public and final.
    Vote {
        proposal: u64,
        choice: Choice,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Start the timelock of an accepted proposal; anyone may.
    Queue {
        proposal: u64,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Make the calls of a proposal whose timelock ended, all or none; anyone may.
    Execute {
        proposal: u64,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// End your own proposal, or one whose proposer no longer commands the threshold.
    Cancel {
        proposal: u64,
        #[command(flatten)]
        wallet: Wallet,
    },
}

/// Calls are made in this order: parameters, rewards, payments, drip, upgrade, the file's, --call's.
#[derive(Debug, Args)]
pub struct ProposalCreateArgs {
    /// At most 120 bytes. Public for ever.
    #[arg(long)]
    pub title: String,
    /// At most 4096 bytes. Public for ever.
    #[arg(long, default_value = "")]
    pub description: String,
    /// Change a parameter, in the form of `profile show`: tokens, parts per million, ms, true or false.
    /// All changes are made together.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Reward a model's runs at so many percent of the curve, in full from so many bytes of output;
    /// `MODEL=none` ends its reward.
    #[arg(long, value_name = "MODEL=RATE_PERCENT:UNIT_BYTES")]
    pub reward: Vec<String>,
    /// Pay from the treasury, in tokens.
    #[arg(long, value_name = "ADDRESS=AMOUNT")]
    pub pay: Vec<String>,
    /// Give a pool this weight in the liquidity drip; 0 for none of it.
    #[arg(long, value_name = "POOL=WEIGHT")]
    pub drip: Vec<String>,
    /// A version of the protocol comes into force at a height.
    #[arg(long, value_name = "VERSION@HEIGHT")]
    pub upgrade: Option<String>,
    /// A JSON or TOML file of calls: a JSON list, or either with a list named `calls`.
    #[arg(long, value_name = "FILE")]
    pub calls: Option<PathBuf>,
    /// A call as JSON, such as '{"call":"upgrade_cancel"}'; amounts are strings of base units.
    #[arg(long = "call", value_name = "JSON")]
    pub call: Vec<String>,
    #[command(flatten)]
    pub wallet: Wallet,
}

/// What a vote on a proposal says.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Choice {
    For,
    Against,
    /// Counts for the quorum alone.
    Abstain,
}

impl From<Choice> for VoteChoice {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::For => Self::For,
            Choice::Against => Self::Against,
            Choice::Abstain => Self::Abstain,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum VotesCommand {
    /// Let another account vote with your units; naming yourself ends that. This is public.
    Delegate {
        to: Address,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Print what an account can say in votes on proposals now.
    Show {
        address: Address,
        #[command(flatten)]
        node: NodeUrl,
    },
}

/// MODEL is a name or an id everywhere.
#[derive(Debug, Subcommand)]
pub enum DaoCommand {
    /// List the model DAOs.
    List {
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Turn your model into a DAO, for ever: its fees belong to the holders of its shares.
    Create {
        model: String,
        /// How many there are; all of them are yours at first.
        shares: u64,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Print a DAO and its open proposal.
    Show {
        model: String,
        #[command(flatten)]
        node: NodeUrl,
    },
    /// List the holders of a model's shares, with their offers.
    Holders {
        model: String,
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Collect what your shares earned.
    Claim {
        model: String,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Offer shares at a fixed price, replacing your earlier offer.
    Sell {
        model: String,
        shares: u64,
        /// For one share, in tokens.
        #[arg(long)]
        price: Amount,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Take your offer back.
    Unsell {
        model: String,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Buy shares that somebody offers.
    Buy {
        model: String,
        shares: u64,
        /// Whose offer to take; `dao holders` lists them.
        #[arg(long, value_name = "SELLER")]
        from: Address,
        /// The most that you pay for all of them, in tokens. [default: what the offer says now]
        #[arg(long)]
        max_total: Option<Amount>,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Propose new terms to the other holders; the vote begins at once and is public.
    Propose {
        model: String,
        /// Of one run, in tokens.
        #[arg(long)]
        fee: Amount,
        /// Who gets the fee; the holders if absent.
        #[arg(long)]
        payee: Option<Address>,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Vote on the open proposal with the shares that you had before it. Votes are public and final.
    Vote {
        model: String,
        answer: YesNo,
        #[command(flatten)]
        wallet: Wallet,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum YesNo {
    Yes,
    No,
}

/// ASSET is `native`, `shares:MODEL_ID`, `lp:POOL_ID` or `test:NUMBER`.
#[derive(Debug, Subcommand)]
pub enum AssetCommand {
    /// Send any asset to another account: shares as whole counts, the rest in tokens. This is public.
    Transfer {
        asset: AssetId,
        to: Address,
        amount: String,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// List what an account has beside the native token.
    List {
        address: Address,
        #[command(flatten)]
        node: NodeUrl,
    },
}

/// The least that a trade may give.
#[derive(Clone, Copy, Debug, Args)]
pub struct Slippage {
    /// Refuse if less comes out than now, by more than so many percent.
    #[arg(long, value_name = "PERCENT", default_value = "1")]
    pub slippage: Amount,
}

/// ASSET is `native`, `shares:MODEL_ID`, `lp:POOL_ID` or `test:NUMBER`; amounts of shares are whole
/// counts, the rest tokens. POOL is an id or two assets, such as `native/test:1`.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// List the pools of the market.
    List {
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Print a pool.
    Show {
        pool: String,
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Print what is left of the liquidity drip, and the pools that share it.
    Drip {
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Put two assets into their pool at its price; a pool that does not exist is made.
    Add {
        asset: AssetId,
        /// The most of it to put in.
        amount: String,
        other: AssetId,
        /// The most of the other one.
        other_amount: String,
        /// The fewest liquidity shares to accept.
        #[arg(long, default_value = "0")]
        lp_min: Amount,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Give liquidity shares back for their part of the pool.
    Remove {
        pool: String,
        lp: Amount,
        #[command(flatten)]
        slippage: Slippage,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Swap one asset for another.
    Swap {
        asset_in: AssetId,
        amount: String,
        asset_out: AssetId,
        /// The least to accept, instead of --slippage.
        #[arg(long, value_name = "AMOUNT")]
        out_min: Option<String>,
        #[command(flatten)]
        slippage: Slippage,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Print what a swap would give now.
    Quote {
        asset_in: AssetId,
        amount: String,
        asset_out: AssetId,
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Stake liquidity shares for the drip.
    Stake {
        pool: String,
        lp: Amount,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Take staked liquidity shares back.
    Unstake {
        pool: String,
        lp: Amount,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Collect what your staked liquidity earned.
    Claim {
        pool: String,
        #[command(flatten)]
        wallet: Wallet,
    },
}

#[derive(Debug, Subcommand)]
pub enum CallCommand {
    /// Sign and send any call, given as JSON, after printing its sentence. Calls are public.
    Send {
        /// Such as '{"call":"transfer","to":"0x…","amount":"1000"}'; `-` reads it from stdin. Amounts are
        /// strings of base units.
        call_json: String,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// List every call of the ledger and the command that sends it.
    List,
}
