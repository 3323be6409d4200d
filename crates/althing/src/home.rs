//! Networks on disk: what `init` writes and the other commands read.
//!
//! ```text
//! DIR/genesis.json            the first state; its hash is the chain id
//! DIR/network-key             the network's public key: what receipts are checked against
//! DIR/coordinators/0/         home of a coordinator: genesis.json, coordinator.key, account.key, node.toml, chain/
//! DIR/providers/0/            home of a provider: provider.toml, session.key, wallet.key, content/, private/
//! DIR/gateway/                home of a gateway: gateway.toml, api-keys.json, receipts/, content/
//! DIR/wallets/client.key      the account that pays in examples; DIR/wallets/maker.key owns the model
//! ```
//!
//! Each home is complete in itself and may be moved to another machine.

use crate::{shipped, upstreams::UpstreamSettings};
use althing_chain::{CoordinatorSecret, NetworkPublic, deal};
use althing_content::{BlobStore, Cid, disk::Options, gateway::Settings};
use althing_gateway::{ApiKey, ApiKeys, GatewayConfig};
use althing_provider::{Behaviour, PolicyName, ProfitPolicy, ServerConfig};
use althing_sdk::{SessionKeyPair, Signer as _, WalletSigner, keys::write_secret_line};
use althing_types::{
    Address, Amount, AssetId, ContentSource, Genesis, Hash, Ppm, SessionPublicKey, Verification,
    amount::{from_tokens, to_tokens},
    call::Scope,
    genesis::{GenesisAccount, GenesisAsset, GenesisModel, GenesisSessionKey},
    profile::{GenesisPlan, HolderPlan, Profile},
};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Session keys of homes that `init` makes never expire by themselves; wallets can revoke them.
const NEVER_MS: u64 = 253_402_300_799_000;

/// What a new network is to have.
#[derive(Clone, Debug)]
pub struct Plan {
    pub network: String,
    pub coordinators: u32,
    pub providers: u32,
    pub profile: Profile,
    /// Models beside the shipped one that all providers serve.
    pub models: Vec<PlannedModel>,
    /// Whether the client and the maker hold a test asset, to try the market with. (G-4)
    pub test_asset: bool,
    /// First of the ports: coordinators' own, their APIs, providers, the gateway.
    pub port_base: u16,
}

/// A model of a new network.
#[derive(Clone, Debug)]
pub struct PlannedModel {
    pub name: String,
    pub package: Cid,
    pub verification: Verification,
}

/// `node.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSettings {
    /// Where other coordinators reach this one.
    pub listen: SocketAddr,
    /// Where clients reach its API.
    pub api: SocketAddr,
    /// Base URLs that may have inputs, which the coordinator can be drawn to fetch. (T-21)
    #[serde(default)]
    pub content_sources: Vec<String>,
    /// Whether what orders name as sources is asked at private addresses too; for networks on one machine.
    #[serde(default)]
    pub sources_private: bool,
    /// The other coordinators.
    #[serde(default)]
    pub peers: Vec<Peer>,
}

/// Another coordinator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its public key, hex.
    pub key: Hash,
    pub address: SocketAddr,
}

/// `provider.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// The bonded account that session.key acts for.
    pub account: althing_types::Address,
    /// Base URL of a node's API.
    pub node: String,
    pub listen: SocketAddr,
    /// Base URL where others reach it; `http://` and `listen` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Names of the models that it serves.
    pub models: Vec<String>,
    /// Which work it takes: `profit`, or `volunteer` for all that there is. (T-12)
    #[serde(default)]
    pub policy: PolicyName,
    /// Least own earning from an order for which it runs, in tokens.
    #[serde(default, deserialize_with = "from_tokens", serialize_with = "to_tokens")]
    pub earning_min: Amount,
    /// What an hour in which a model runs costs, in tokens.
    #[serde(default, deserialize_with = "from_tokens", serialize_with = "to_tokens")]
    pub compute_cost_per_hour: Amount,
    /// How likely an own answer is wrong all the same, parts per million.
    #[serde(default)]
    pub error_ppm: Ppm,
    /// Share of others' answers that it re-runs even if no agreement is wanted or pays, parts per
    /// million. (T-11)
    #[serde(default = "all")]
    pub watch_share: Ppm,
    /// Base URLs that may have packages and inputs.
    #[serde(default)]
    pub content_sources: Vec<String>,
    /// Whether what orders name as sources is asked at private addresses too; for networks on one machine.
    #[serde(default)]
    pub sources_private: bool,
    /// Runs at a time, of all models together.
    #[serde(default = "eight")]
    pub runs_max: usize,
    /// Most memory for models and runs, bytes; without it there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max_bytes: Option<u64>,
    /// Most of it for what was read earlier, in case a prompt begins alike, bytes.
    #[serde(default = "gibibyte")]
    pub prefix_cache_max_bytes: u64,
    #[serde(default)]
    pub behaviour: Behaviour,
    /// What it keeps and gives out.
    #[serde(default, skip_serializing_if = "ContentSettings::is_default")]
    pub content: ContentSettings,
    /// Servers elsewhere that run models for it, by the models' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub upstreams: BTreeMap<String, UpstreamSettings>,
}

/// `[content]` in `provider.toml` and `gateway.toml`: what a role keeps and gives out; `content.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentSettings {
    /// Most bytes beside what is pinned, such as packages; without it there is no limit. When there are more, those go
    /// that were not used for longest, a day at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// Blocks that are not given out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub denied: BTreeSet<Cid>,
}

impl ContentSettings {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Opens a store under these limits.
    ///
    /// # Errors
    /// If its files cannot be used.
    pub fn open(&self, directory: PathBuf) -> Result<BlobStore> {
        let quota_bytes = self.quota_bytes.unwrap_or(u64::MAX);
        Ok(BlobStore::open_with(directory, Options { quota_bytes, ..Options::default() })?)
    }

    /// How it is served.
    pub fn gateway(&self) -> Settings {
        Settings { denied: self.denied.clone(), ..Settings::default() }
    }
}

fn eight() -> usize {
    8
}

fn gibibyte() -> u64 {
    1 << 30
}

fn all() -> Ppm {
    Ppm::ONE
}

impl ProviderSettings {
    /// The numbers of its policy. (T-12)
    pub fn profit(&self) -> ProfitPolicy {
        ProfitPolicy {
            earning_min: self.earning_min,
            compute_cost_per_hour: self.compute_cost_per_hour,
            error_ppm: self.error_ppm,
        }
    }

    /// How much it does at a time.
    pub fn server(&self) -> ServerConfig {
        let Self { runs_max, memory_max_bytes, prefix_cache_max_bytes, .. } = *self;
        ServerConfig { runs_max, memory_max_bytes, prefix_cache_max_bytes }
    }

    /// Where it can be reached from this machine or, if it says so, from others.
    pub fn url(&self) -> String {
        self.endpoint.clone().unwrap_or_else(|| format!("http://{}", self.listen))
    }
}

/// `gateway.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySettings {
    /// Base URL of a node's API.
    pub node: String,
    pub listen: SocketAddr,
    /// What is offered for a run beside the model's own fee, in tokens.
    #[serde(deserialize_with = "from_tokens", serialize_with = "to_tokens")]
    pub fee_open: Amount,
    #[serde(deserialize_with = "from_tokens", serialize_with = "to_tokens")]
    pub fee_chosen: Amount,
    /// Agreements asked and paid for in the open lane.
    pub agreements: u8,
    pub answer_within_ms: u64,
    /// Whether providers at private addresses are asked: they are strangers, and say themselves where they are. For
    /// networks on one machine.
    #[serde(default)]
    pub sources_private: bool,
    /// By the model's name, the only providers that are asked for it in the chosen lane: of what nobody can check.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub providers_trusted: BTreeMap<String, BTreeSet<Address>>,
    /// Base URL where others reach this gateway, which orders with long inputs name and so make public; `http://` and
    /// `listen` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_url: Option<ContentSource>,
    /// What it keeps and gives out.
    #[serde(default, skip_serializing_if = "ContentSettings::is_default")]
    pub content: ContentSettings,
}

impl GatewaySettings {
    /// Where others reach its content, which it serves at `address`. An address that stands for all of a machine's is
    /// none that can be asked.
    pub fn content_url(&self, address: SocketAddr) -> Option<ContentSource> {
        let own = || (!address.ip().is_unspecified()).then(|| ContentSource(format!("http://{address}")));
        self.content_url.clone().or_else(own)
    }
}

/// A network's directory.
#[derive(Clone, Debug)]
pub struct Home(pub PathBuf);

/// Writes a file that must not exist yet.
fn create(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_ref())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}

fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make the directory {}", path.display()))
}

/// Reads a TOML file.
///
/// # Errors
/// If it is absent, or something in it is unknown or missing.
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is malformed", path.display()))
}

/// Reads a genesis.
///
/// # Errors
/// If it is absent or malformed.
pub fn read_genesis(path: &Path) -> Result<Genesis> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is malformed", path.display()))
}

impl Home {
    /// Whether there is a network here.
    pub fn exists(&self) -> bool {
        self.0.join("genesis.json").exists()
    }
    pub fn genesis(&self) -> Result<Genesis> {
        read_genesis(&self.0.join("genesis.json"))
    }
    pub fn coordinator(&self, index: u32) -> PathBuf {
        self.0.join("coordinators").join(index.to_string())
    }
    pub fn provider(&self, index: u32) -> PathBuf {
        self.0.join("providers").join(index.to_string())
    }
    pub fn gateway(&self) -> PathBuf {
        self.0.join("gateway")
    }
    pub fn wallet(&self, name: &str) -> PathBuf {
        self.0.join("wallets").join(format!("{name}.key"))
    }
    /// How many homes of a kind there are.
    pub fn count(&self, kind: &str) -> u32 {
        (0..)
            .take_while(|index| self.0.join(kind).join(index.to_string()).is_dir())
            .count()
            .try_into()
            .unwrap_or(u32::MAX)
    }

    /// Makes a network's directory; nothing runs yet.
    ///
    /// # Errors
    /// If the directory holds a network already or cannot be written.
    pub fn init(&self, plan: &Plan) -> Result<Genesis> {
        if self.exists() {
            bail!("{} holds a network already: choose another directory", self.0.display());
        }
        create_dir(&self.0.join("wallets"))?;
        let (public, secrets) = deal(plan.coordinators, rand::rng()).context("the keys of the network")?;
        let port = |offset: u32| -> Result<SocketAddr> {
            let port = u32::from(plan.port_base) + offset;
            let port = u16::try_from(port)
                .ok()
                .filter(|port| *port > 0)
                .context("the ports end at 65535: choose a lower --port-base")?;
            Ok(SocketAddr::from(([127, 0, 0, 1], port)))
        };
        let (p2p, api) = (|i: u32| port(i), |i: u32| port(20 + i));
        let content_sources = vec![format!("http://{}", port(60)?)];
        let node = format!("http://{}", api(0)?);

        let shipped = PlannedModel {
            name: "tiny-stories".into(),
            package: shipped::tiny_stories()?.cid,
            verification: Verification::Exact,
        };
        let models: Vec<_> = std::iter::once(shipped).chain(plan.models.iter().cloned()).collect();
        let (client, maker) = (WalletSigner::random(), WalletSigner::random());
        let session = SessionKeyPair::random();
        let holdings = Holdings::of(&plan.profile.genesis)?;
        let mut accounts = vec![
            holdings.account(Role::Client, client.account(), Some((session.public(), Scope::Client))),
            holdings.account(Role::Maker, maker.account(), None),
        ];
        if plan.test_asset {
            for account in &mut accounts {
                account.assets.push(GenesisAsset { asset: AssetId::Test(1), amount: Amount::tokens(1_000) });
            }
        }
        accounts.extend(holdings.others.iter().cloned());
        let mut provider_accounts = Vec::new();
        let gateway = self.gateway();
        create_dir(&gateway)?;
        let defaults = GatewayConfig::default();
        let settings = GatewaySettings {
            node: node.clone(),
            listen: port(60)?,
            fee_open: defaults.fee_open,
            fee_chosen: defaults.fee_chosen,
            agreements: defaults.agreements,
            answer_within_ms: defaults.answer_within_ms,
            sources_private: true,
            providers_trusted: BTreeMap::new(),
            content_url: None,
            content: ContentSettings::default(),
        };
        create(&gateway.join("gateway.toml"), toml::to_string_pretty(&settings)?)?;
        let api_key =
            ApiKey { api_key: ApiKeys::random_text(), account: client.account(), session_key: Hash(session.secret()) };
        ApiKeys::add(&gateway.join("api-keys.json"), api_key)?;
        client.write(&self.wallet("client"))?;
        maker.write(&self.wallet("maker"))?;

        for index in 0..plan.providers {
            let (wallet, session) = (WalletSigner::random(), SessionKeyPair::random());
            let key = (session.public(), Scope::Provider);
            accounts.push(holdings.account(Role::Provider, wallet.account(), Some(key)));
            provider_accounts.push(wallet.account());
            let home = self.provider(index);
            create_dir(&home)?;
            wallet.write(&home.join("wallet.key"))?;
            session.write(&home.join("session.key"))?;
            let settings = ProviderSettings {
                account: wallet.account(),
                node: format!("http://{}", api(index % plan.coordinators)?),
                listen: port(40 + index)?,
                endpoint: None,
                models: models.iter().map(|model| model.name.clone()).collect(),
                policy: PolicyName::default(),
                earning_min: Amount::ZERO,
                compute_cost_per_hour: Amount::ZERO,
                error_ppm: Ppm::default(),
                watch_share: Ppm::ONE,
                content_sources: content_sources.clone(),
                // All of it is on this machine, so that is where clients have their inputs.
                sources_private: true,
                runs_max: eight(),
                memory_max_bytes: None,
                prefix_cache_max_bytes: gibibyte(),
                behaviour: Behaviour::Honest,
                content: ContentSettings::default(),
                upstreams: BTreeMap::new(),
            };
            create(&home.join("provider.toml"), toml::to_string_pretty(&settings)?)?;
        }

        let coordinators: Vec<_> = (0..plan.coordinators).map(|_| WalletSigner::random()).collect();
        let genesis_model = |model: &PlannedModel| GenesisModel {
            name: model.name.clone(),
            owner: maker.account(),
            package: model.package,
            fee: Amount(Amount::TOKEN.0 / 1_000),
            payee: maker.account(),
            verification: model.verification,
            reward: None,
        };
        let genesis = Genesis {
            network: plan.network.clone(),
            time_ms: althing_sdk::Clock::now_ms(&althing_sdk::SystemClock),
            coordinators: public.to_hex(),
            accounts,
            models: models.iter().map(genesis_model).collect(),
            voters: voters(&plan.profile.genesis, client.account(), maker.account(), &provider_accounts)?,
            coordinator_accounts: coordinators.iter().map(WalletSigner::account).collect(),
            params: plan.profile.params.clone(),
        };
        // A genesis that the ledger would refuse is noticed here, not at the first start.
        althing_ledger::genesis_state(&genesis).context("the network's first state")?;
        let text = serde_json::to_string_pretty(&genesis)?;
        for (index, (secret, account)) in (0u32..).zip(secrets.iter().zip(&coordinators)) {
            let home = self.coordinator(index);
            create_dir(&home)?;
            create(&home.join("genesis.json"), &text)?;
            write_secret_line(&home.join("coordinator.key"), &secret.to_hex())?;
            account.write(&home.join("account.key"))?;
            let others = (0u32..).zip(public.participants()).filter(|(other, _)| *other != index);
            let peers =
                others.map(|(other, key)| Ok(Peer { key: Hash(key), address: p2p(other)? })).collect::<Result<_>>()?;
            let content_sources = content_sources.clone();
            let settings =
                NodeSettings { listen: p2p(index)?, api: api(index)?, content_sources, sources_private: true, peers };
            create(&home.join("node.toml"), toml::to_string_pretty(&settings)?)?;
        }
        create(&self.0.join("network-key"), format!("{}\n", public.to_hex()))?;
        // Last: its presence says that the rest is complete.
        create(&self.0.join("genesis.json"), &text)?;
        Ok(genesis)
    }
}

/// The accounts that a profile can name without knowing their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Client,
    Maker,
    Provider,
}

impl Role {
    /// The role of a name in a profile; an address has none.
    fn named(name: &str) -> Option<Self> {
        match name {
            "client" => Some(Self::Client),
            "maker" => Some(Self::Maker),
            "provider" => Some(Self::Provider),
            _ => None,
        }
    }
}

/// A name in a profile that is no role is an address.
fn address(who: &str) -> Result<Address> {
    who.parse().with_context(|| format!("{who:?} in the profile's [genesis] is neither client, maker, provider"))
}

/// What each role holds at first, and other accounts that the profile names.
struct Holdings {
    /// Free balance and bond.
    roles: BTreeMap<Role, (Amount, Amount)>,
    others: Vec<GenesisAccount>,
}

impl Holdings {
    /// The profile's holders, or a supply to try things with.
    fn of(plan: &GenesisPlan) -> Result<Self> {
        let mut holdings = Self { roles: BTreeMap::new(), others: Vec::new() };
        if plan.holders.is_empty() {
            holdings.roles.insert(Role::Client, (Amount::tokens(1_000), Amount::ZERO));
            holdings.roles.insert(Role::Maker, (Amount::tokens(10), Amount::ZERO));
            holdings.roles.insert(Role::Provider, (Amount::tokens(10), Amount::tokens(100)));
        }
        for HolderPlan { who, free, bond } in &plan.holders {
            match Role::named(who) {
                Some(role) => {
                    holdings.roles.insert(role, (*free, *bond));
                }
                None => holdings.others.push(GenesisAccount {
                    address: address(who)?,
                    free: *free,
                    bond: *bond,
                    session_keys: Vec::new(),
                    assets: Vec::new(),
                }),
            }
        }
        Ok(holdings)
    }

    fn account(&self, role: Role, address: Address, key: Option<(SessionPublicKey, Scope)>) -> GenesisAccount {
        let (free, bond) = self.roles.get(&role).copied().unwrap_or_default();
        let session_key = |(key, scope)| GenesisSessionKey {
            key,
            scope,
            spend_limit: Amount::tokens(1_000),
            expires_at_ms: NEVER_MS,
        };
        GenesisAccount {
            address,
            free,
            bond,
            session_keys: key.into_iter().map(session_key).collect(),
            assets: Vec::new(),
        }
    }
}

/// Who votes while bonds are not required. (T-9)
fn voters(plan: &GenesisPlan, client: Address, maker: Address, providers: &[Address]) -> Result<Vec<Address>> {
    let mut voters = Vec::new();
    for who in &plan.voters {
        match Role::named(who) {
            Some(Role::Client) => voters.push(client),
            Some(Role::Maker) => voters.push(maker),
            Some(Role::Provider) => voters.extend(providers),
            None => voters.push(address(who)?),
        }
    }
    Ok(voters)
}

/// A coordinator's home, read.
pub struct CoordinatorHome {
    pub genesis: Genesis,
    pub network: NetworkPublic,
    pub secret: CoordinatorSecret,
    /// The key of its account; without one it fetches no inputs. (T-21)
    pub account: Option<WalletSigner>,
    pub settings: NodeSettings,
    pub directory: PathBuf,
}

impl CoordinatorHome {
    /// Reads a coordinator's home.
    ///
    /// # Errors
    /// If a file is absent or malformed.
    pub fn read(directory: &Path) -> Result<Self> {
        let genesis = read_genesis(&directory.join("genesis.json"))?;
        let network =
            NetworkPublic::from_hex(&genesis.coordinators).context("the coordinators' key in genesis.json")?;
        let path = directory.join("coordinator.key");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let secret =
            CoordinatorSecret::from_hex(text.trim()).with_context(|| format!("{} holds no key", path.display()))?;
        let settings = read_toml(&directory.join("node.toml"))?;
        let account = directory.join("account.key");
        let account = if account.exists() { Some(WalletSigner::read(&account)?) } else { None };
        Ok(Self { genesis, network, secret, account, settings, directory: directory.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T-12
    #[test]
    fn providers_that_say_nothing_about_profit_take_what_pays_and_watch_everything() {
        let account = Address([1; 20]);
        let text = format!(
            "account = \"{account}\"\nnode = \"http://127.0.0.1:7720\"\nlisten = \"127.0.0.1:7740\"\n\
             models = [\"tiny-stories\"]\nearning_min = \"0.5\"\nruns_max = 2\n"
        );
        let settings: ProviderSettings = toml::from_str(&text).unwrap();
        let earning_min = Amount(Amount::TOKEN.0 / 2);
        assert_eq!(settings.profit(), ProfitPolicy { earning_min, ..ProfitPolicy::default() });
        assert_eq!((settings.policy, settings.watch_share), (PolicyName::Profit, Ppm::ONE));
        assert_eq!(settings.url(), "http://127.0.0.1:7740");
        let again: ProviderSettings = toml::from_str(&toml::to_string_pretty(&settings).unwrap()).unwrap();
        assert_eq!(again.profit(), settings.profit());
        let (server, of_default) =
            (settings.server(), toml::from_str::<ProviderSettings>(&text.replace("runs_max = 2", "")));
        assert_eq!((server.runs_max, server.memory_max_bytes, again.prefix_cache_max_bytes), (2, None, 1 << 30));
        assert_eq!(of_default.unwrap().runs_max, 8);
    }
}
