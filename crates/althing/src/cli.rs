//! The command line: noun, then verb. Data goes to stdout, the rest to stderr; `--json` where there
//! is data.

use crate::economy_cli::{
    AssetCommand, CallCommand, DaoCommand, DelegationCommand, PoolCommand, ProposalCommand, VotesCommand,
};
use crate::upstreams::{AdaptArgs, ServerArgs, UpstreamArg};
use althing_gateway::Level;
use althing_types::{Address, Amount, Cid, OrderId, SessionPublicKey, call::Scope};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{net::SocketAddr, path::PathBuf};

/// An open network of AI work: anyone can offer, buy, verify and be paid for it.
#[derive(Debug, Parser)]
#[command(name = "althing", version, arg_required_else_help = true)]
pub struct Cli {
    /// Say more on stderr. ALTHING_LOG takes the usual filters, such as `debug`.
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Print data as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a whole network in one process, on this machine only, and ask it something.
    Dev(DevArgs),
    /// Make the directory of a new network: genesis, keys and settings of all its parts.
    Init(InitArgs),
    /// Run a coordinator, or ask one.
    Node(NodeArgs),
    /// Run a provider, which serves models and is paid for it, or ask one.
    Provider(ProviderArgs),
    /// Run a gateway: an OpenAI-compatible API.
    Gateway(GatewayArgs),
    /// Ask a gateway something.
    Ask(AskArgs),
    /// Make and inspect keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Read accounts; bond and unbond; say what a provider keeps of its delegators' earnings.
    #[command(subcommand)]
    Account(AccountCommand),
    /// Send tokens to another account. Transfers are public.
    Transfer(TransferArgs),
    /// List, inspect and register models.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Files and directories by their CIDs: add, get, pin; archives in and out.
    #[command(subcommand)]
    Content(crate::content::ContentCommand),
    /// List, inspect and cancel orders.
    #[command(subcommand)]
    Order(OrderCommand),
    /// Run chains of orders with a budget; what falls is resumed without paying twice.
    #[command(subcommand)]
    Program(ProgramCommand),
    /// List and inspect disputes; contest an answer.
    #[command(subcommand)]
    Dispute(DisputeCommand),
    /// Stake behind providers for a share of what they earn.
    #[command(subcommand)]
    Delegation(DelegationCommand),
    /// Propose and decide what governance does.
    #[command(subcommand)]
    Proposal(ProposalCommand),
    /// See and give away voting power.
    #[command(subcommand)]
    Votes(VotesCommand),
    /// Models whose fees belong to the holders of their shares.
    #[command(subcommand)]
    Dao(DaoCommand),
    /// List and send assets beside the native token.
    #[command(subcommand)]
    Asset(AssetCommand),
    /// The market: swap assets, provide liquidity.
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Send any call of the ledger.
    #[command(subcommand)]
    Call(CallCommand),
    /// Check a receipt offline against the network's public key.
    Verify(VerifyArgs),
    /// What tasks earn beside their fees, and a picture of ten years.
    #[command(subcommand)]
    Emission(EmissionCommand),
    /// Play stories about the ledger: who does what when, and what comes of it.
    #[command(subcommand)]
    Scenario(ScenarioCommand),
    /// The parameters of a network.
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Measure this machine.
    #[command(subcommand)]
    Bench(BenchCommand),
}

#[derive(Debug, Args)]
pub struct DevArgs {
    /// A question to ask as an open order. Questions in the open lane are public to the network.
    #[arg(long)]
    pub ask: Option<String>,
    /// End after the answer instead of serving on.
    #[arg(long)]
    pub exit: bool,
    /// Keep the network here and continue it at the next start. A new temporary directory if absent.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Coordinators, over loopback sockets if more than one. For new networks.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub coordinators: u32,
    /// Providers. For new networks.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub providers: u32,
    /// How many of the providers lie: they reveal garbage without running anything.
    #[arg(long, default_value_t = 0)]
    pub liars: u32,
    /// Parameters of the ledger: `default`, `dml` (the paper, exactly), or a TOML file. For new
    /// networks.
    #[arg(long, value_name = "NAME|FILE", default_value = "default")]
    pub profile: String,
    /// Serve this model too: a GGUF file, a directory of Hugging Face's files, or a package. A network
    /// that is continued needs it again.
    #[arg(long, value_name = "FILE|DIR")]
    pub model: Option<PathBuf>,
    /// Serve the model of this server too: a Cog server, or one that speaks OpenAI's API. Nobody can check its
    /// answers.
    #[arg(long, value_name = "URL", conflicts_with = "model")]
    pub upstream: Option<String>,
    #[command(flatten)]
    pub upstream_server: ServerArgs,
    /// Address of the OpenAI-compatible API. [default: 127.0.0.1:8700, any free port with --exit]
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Address of the first coordinator's API. [default: 127.0.0.1:8701, any free port with --exit]
    #[arg(long)]
    pub listen_node: Option<SocketAddr>,
    /// Once everything serves, write addresses and keys to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub ready_json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Directory of the new network.
    pub dir: PathBuf,
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub coordinators: u32,
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=20))]
    pub providers: u32,
    /// The network's name.
    #[arg(long, default_value = "althing")]
    pub network: String,
    /// Parameters of the ledger: `default`, `dml` (the paper, exactly), or a TOML file.
    #[arg(long, value_name = "NAME|FILE", default_value = "default")]
    pub profile: String,
    /// Use the windows of seconds that the profile has for dev networks.
    #[arg(long)]
    pub dev_windows: bool,
    /// First of the loopback ports in the settings: coordinators, from +20 their APIs, from +40
    /// providers, +60 the gateway.
    #[arg(long, default_value_t = 7700)]
    pub port_base: u16,
}

/// Which node to ask.
#[derive(Clone, Debug, Args)]
pub struct NodeUrl {
    /// Base URL of a node's API.
    #[arg(long, env = "ALTHING_NODE", default_value = "http://127.0.0.1:8701")]
    pub node: String,
}

/// Who signs.
#[derive(Clone, Debug, Args)]
pub struct Wallet {
    /// The key file of the account that signs: `althing key new` makes one.
    #[arg(long, env = "ALTHING_WALLET", value_name = "FILE")]
    pub wallet: PathBuf,
    #[command(flatten)]
    pub node: NodeUrl,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct NodeArgs {
    #[command(subcommand)]
    pub command: Option<NodeCommand>,
    /// The coordinator's home: a directory that `althing init` made.
    #[arg(long, value_name = "DIR", required = true)]
    pub home: Option<PathBuf>,
    /// Threads of the consensus engine.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Where a node stands; with --height, what it has at that height.
    Status {
        /// Print the state root and the digest of this block.
        #[arg(long)]
        height: Option<u64>,
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Which version of the protocol runs, which one is scheduled, and which this node can run.
    Protocol {
        #[command(flatten)]
        node: NodeUrl,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ProviderArgs {
    #[command(subcommand)]
    pub command: Option<ProviderCommand>,
    /// The provider's home: a directory that `althing init` made.
    #[arg(long, value_name = "DIR", required = true)]
    pub home: Option<PathBuf>,
    /// A server that runs a model for it, a Cog server or one that speaks OpenAI's API: of the registered model of this
    /// name, or of all that no engine here runs and provider.toml says nothing of. The URL stays with the provider.
    #[arg(long, value_name = "[MODEL=]URL")]
    pub upstream: Vec<UpstreamArg>,
}

#[derive(Debug, Subcommand)]
pub enum ProviderCommand {
    /// What a provider did and earned, and why it took its work or left it.
    Status {
        /// Base URL where the provider is reached.
        #[arg(long, required_unless_present = "home")]
        url: Option<String>,
        /// The provider's home, whose settings say where it is reached.
        #[arg(long, value_name = "DIR", conflicts_with = "url")]
        home: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct GatewayArgs {
    /// The gateway's home: a directory that `althing init` made.
    #[arg(long, value_name = "DIR")]
    pub home: PathBuf,
}

/// How sure an answer must be.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Wait {
    /// Take it as it comes.
    None,
    /// Another provider re-ran it and got the same bits.
    Agreed,
    /// Its challenge window passed.
    Final,
}

impl From<Wait> for Level {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::None => Self::None,
            Wait::Agreed => Self::Agreed,
            Wait::Final => Self::Final,
        }
    }
}

#[derive(Debug, Args)]
pub struct AskArgs {
    /// The question. With a model name that ends in :open, question and answer become public.
    pub question: String,
    /// `NAME` goes straight to one provider; `NAME:open` is a race with agreement.
    #[arg(long, default_value = "tiny-stories")]
    pub model: String,
    /// Base URL of a gateway.
    #[arg(long, env = "ALTHING_GATEWAY", default_value = "http://127.0.0.1:8700")]
    pub gateway: String,
    #[arg(long, env = "ALTHING_API_KEY", hide_env_values = true)]
    pub api_key: String,
    /// How sure the answer must be. [default: agreed in the open lane, none in the chosen one]
    #[arg(long)]
    pub wait: Option<Wait>,
    /// A sampling seed, for an answer that can be had again.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// What a session key may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KeyScope {
    /// Everything except managing session keys.
    All,
    /// Submit and cancel orders.
    Client,
    /// Bond, serve, solve, agree, contest, vote.
    Provider,
}

impl From<KeyScope> for Scope {
    fn from(scope: KeyScope) -> Self {
        match scope {
            KeyScope::All => Self::All,
            KeyScope::Client => Self::Client,
            KeyScope::Provider => Self::Provider,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make an account: a new secret key in a file that only you may read.
    New { file: PathBuf },
    /// Print the address of an account's key file.
    Show { file: PathBuf },
    /// Make an API key for a gateway: a session key of your account with a spending limit.
    Create {
        /// The gateway's home, where the key is added; restart the gateway to use it.
        #[arg(long, value_name = "DIR")]
        home: PathBuf,
        /// What the key may spend in all.
        #[arg(long, default_value = "100")]
        spend_limit: Amount,
        /// Days until it expires.
        #[arg(long, default_value_t = 90)]
        days: u64,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Let an existing session key act for your account.
    Add {
        key: SessionPublicKey,
        #[arg(long, value_enum, default_value = "client")]
        scope: KeyScope,
        #[arg(long, default_value = "100")]
        spend_limit: Amount,
        #[arg(long, default_value_t = 90)]
        days: u64,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Stop a session key at once.
    Revoke {
        key: SessionPublicKey,
        #[command(flatten)]
        wallet: Wallet,
    },
}

#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Print where each unit of an account is, and when it comes free.
    Show {
        address: Address,
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Move free tokens into the provider bond.
    Bond {
        amount: Amount,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Start to release part of the bond.
    Unbond {
        amount: Amount,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Announce what you keep, as provider, of what you earn for your delegators.
    Commission {
        /// Such as 12.5.
        percent: Amount,
        #[command(flatten)]
        wallet: Wallet,
    },
}

#[derive(Debug, Args)]
pub struct TransferArgs {
    pub to: Address,
    /// Tokens, such as 1.5.
    pub amount: Amount,
    #[command(flatten)]
    pub wallet: Wallet,
}

#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// List the registered models.
    List {
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Print a model, by name or id.
    Show {
        model: String,
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Register a package under a name. Names, terms and packages are public.
    Register {
        name: String,
        /// The package's directory; print its CID with `model cid`.
        package: PathBuf,
        #[command(flatten)]
        terms: crate::packages::TermsArgs,
    },
    /// Change the terms of your model for orders submitted later. Terms are public.
    Terms {
        /// Its name or id.
        model: String,
        /// The model's own fee of a run, in tokens.
        #[arg(long)]
        fee: Amount,
        /// Who gets the fee; who got it before if absent.
        #[arg(long)]
        payee: Option<Address>,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Run a model from its files, without a network.
    Run(crate::local::RunArgs),
    /// Check an answer that somebody made with a model, token by token, in one reading.
    Check(crate::local::CheckArgs),
    /// Make vectors of texts, without a network.
    Embed(crate::local::EmbedArgs),
    /// Governance alone rewards models: says how to propose it.
    Reward {
        model: String,
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Make a package of a model that a server runs which you have already: Cog, or whatever speaks OpenAI's API.
    Adapt(AdaptArgs),
    /// Make a package of a model's files and put it into a store; print its CID.
    Pack(crate::packages::PackArgs),
    /// Pack a model and register it. Names, terms and packages are public.
    Publish(crate::packages::PublishArgs),
    /// Fetch a package, each block checked as it comes; what was fetched before an interruption is kept.
    Pull(crate::packages::PullArgs),
    /// Say what a package is.
    Inspect(crate::packages::InspectArgs),
    /// Print the CID of a package's directory, having loaded the model once.
    Cid { package: PathBuf },
    /// Put a package into the content of a provider's or gateway's home.
    Import {
        package: PathBuf,
        #[arg(long, value_name = "DIR")]
        home: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum OrderCommand {
    /// List orders, newest first.
    List {
        /// Only those that are not over.
        #[arg(long)]
        open: bool,
        /// Only those that name this order as the one that they came from.
        #[arg(long, value_name = "ORDER")]
        parent: Option<OrderId>,
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Print an order.
    Show {
        order: OrderId,
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Open an order in the open lane from your account. Input and answer become public.
    Submit(Box<crate::submit::SubmitArgs>),
    /// Take back what is left of the budget of an own order. `account show` lists budgets.
    BudgetClose {
        order: OrderId,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Close an own order that nobody answered yet.
    Cancel {
        order: OrderId,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Claim a solution whose window ended, in networks where claims do not run by themselves.
    Claim {
        order: OrderId,
        #[command(flatten)]
        wallet: Wallet,
    },
}

#[derive(Debug, Subcommand)]
pub enum ProgramCommand {
    /// Start a program; docs/programs.md is the format. Its questions and answers become public.
    Run(ProgramRun),
    /// Go on with a run that was stopped, or fell.
    Resume {
        /// The run's directory.
        dir: PathBuf,
        #[command(flatten)]
        limits: ProgramLimits,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Print a run's timeline: orders, times of their blocks, outputs.
    Show {
        /// The run's directory.
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct ProgramRun {
    /// The program, TOML or JSON.
    pub file: PathBuf,
    /// A value for one of its inputs; can be given many times.
    #[arg(long = "input", value_name = "NAME=VALUE")]
    pub inputs: Vec<String>,
    /// The answers of orders, of whomever, for one of its inputs.
    #[arg(long = "orders", value_name = "NAME=ORDER,…")]
    pub orders: Vec<String>,
    /// Where the run is kept. [default: the program's name with .run]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The order that the program's first ones came from.
    #[arg(long, value_name = "ORDER")]
    pub parent: Option<OrderId>,
    /// The most that it may spend, in tokens, instead of what the program says.
    #[arg(long)]
    pub budget: Option<Amount>,
    #[command(flatten)]
    pub wallet: Wallet,
}

/// Limits that a run may get anew.
#[derive(Debug, Args)]
pub struct ProgramLimits {
    /// The most that it may spend in all, in tokens.
    #[arg(long)]
    pub budget: Option<Amount>,
    /// How many orders there may be for one task.
    #[arg(long)]
    pub attempts: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub enum DisputeCommand {
    /// List the disputes whose votes are not counted yet.
    List {
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Print the newest dispute over an order.
    Show {
        order: OrderId,
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Contest the standing answer of an order; part of your bond is at stake.
    Open {
        order: OrderId,
        /// What your own re-run gave: required where votes are committed. Open it with `reveal`.
        #[arg(long)]
        output: Option<Cid>,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Vote in a dispute; part of your bond is at stake.
    Vote {
        order: OrderId,
        #[command(flatten)]
        answer: VoteAnswer,
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Open a vote that you committed, contesters theirs too: say the same answer again.
    Reveal {
        order: OrderId,
        #[command(flatten)]
        answer: VoteAnswer,
        #[command(flatten)]
        wallet: Wallet,
    },
}

/// What a vote says.
#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct VoteAnswer {
    /// Where votes are open: the answer is right.
    #[arg(long)]
    pub uphold: bool,
    /// Where votes are open: the answer is wrong.
    #[arg(long)]
    pub refute: bool,
    /// Where votes are committed: what your own re-run gave.
    #[arg(long)]
    pub output: Option<Cid>,
    /// Where votes are committed: nobody serves the input.
    #[arg(long)]
    pub input_unavailable: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A receipt file.
    pub receipt: PathBuf,
    /// The network's public key, hex or a file that holds it, such as DIR/network-key. Without it
    /// the receipt is checked against the key that it names itself.
    #[arg(long, value_name = "HEX|FILE")]
    pub network_key: Option<String>,
    /// Run the model again as well and compare the bits.
    #[arg(long)]
    pub rerun: bool,
    /// Directory of the model's package, for --rerun with a model that is not shipped.
    #[arg(long, value_name = "DIR")]
    pub package: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum EmissionCommand {
    /// Print target, multiplier and reward of a task at a point of time.
    Show {
        /// `default`, `dml`, or a TOML file.
        #[arg(long, default_value = "default")]
        profile: String,
        /// Seconds since genesis.
        #[arg(long)]
        elapsed: u64,
        /// Tokens issued so far.
        #[arg(long)]
        supply: Amount,
        /// Tokens that are ever minted, instead of the profile's.
        #[arg(long)]
        cap: Option<Amount>,
        /// Halving time in seconds, instead of the profile's.
        #[arg(long)]
        halving: Option<u64>,
    },
    /// Print where a network's curve stands now.
    Now {
        #[command(flatten)]
        node: NodeUrl,
    },
    /// Draw ten years of uneven demand, claims in part of each day.
    Chart {
        /// `default`, `dml`, or a TOML file.
        #[arg(long, default_value = "dml")]
        profile: String,
        /// The picture, an SVG file.
        #[arg(long, value_name = "FILE", default_value = "emission.svg")]
        out: PathBuf,
        /// Gives another decade of demand.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(Debug, Subcommand)]
pub enum ScenarioCommand {
    /// Play scenarios on the real ledger in virtual time; docs/scenarios.md is the format.
    Run {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// Print every parameter, what it means and the rules that it belongs to.
    Show {
        /// `default`, `dml`, or a TOML file.
        #[arg(default_value = "default")]
        profile: String,
        /// With the windows of dev networks.
        #[arg(long)]
        dev: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Full order cycles a second: through the ledger alone, and through one coordinator with
    /// durable commits.
    Ledger {
        /// Orders of each measurement.
        #[arg(long, default_value_t = 2_000)]
        orders: u32,
    },
    /// What executing a call of each kind costs the ledger, in nanoseconds and in transfers.
    Calls {
        /// Calls of each kind.
        #[arg(long, default_value_t = 1_000)]
        count: usize,
    },
    /// Tokens a second of a model on this machine: prompts, answers, several answers at once.
    Model(crate::local::BenchModelArgs),
}
