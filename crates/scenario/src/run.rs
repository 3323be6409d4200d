//! Plays a scenario on the real ledger, in virtual time.

use crate::{
    file::{AccountEntry, CallEntry, Scenario, ScenarioError, profile_text},
    resolve::{Names, address_of},
};
use althing_ledger::{BlockContext, TREASURY, apply, execute_block, genesis_state, invariants, query};
use althing_types::{
    Address, AssetId, Auth, Call, Event, Genesis, Hash, LedgerError, Order, OrderId, Params, SignedTx, TxReceipt,
    api::{AccountView, Emission, Supply},
    encode,
    genesis::{GenesisAccount, GenesisAsset, GenesisModel},
    profile,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};

/// When every scenario begins, ms since the Unix epoch.
const START_MS: u64 = 1_800_000_000_000;
/// Time from one step to the next, if the scenario says nothing.
const STEP_MS: u64 = 100;
/// Blocks of a wait after which the invariants are checked again.
const CHECK_EVERY: u64 = 1_000;

/// What did not come as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Number of the step, from 1; 0 for the beginning.
    pub step: usize,
    pub what: String,
}

/// What became of a step.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    pub step: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Since the start.
    pub at_ms: u64,
    pub calls: Vec<CallReport>,
}

/// What became of a call.
#[derive(Clone, Debug, Serialize)]
pub struct CallReport {
    pub by: String,
    /// As a wallet would show it.
    pub summary: String,
    pub call: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<LedgerError>,
}

/// What a scenario came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub title: String,
    /// Whether everything came as expected and every invariant held.
    pub passed: bool,
    pub failures: Vec<Failure>,
    /// `hold`, or which one broke.
    pub invariants: String,
    pub blocks: u64,
    pub elapsed_ms: u64,
    /// Hash over the final state: the same for everybody.
    pub state: Hash,
    pub steps: Vec<StepReport>,
    pub accounts: BTreeMap<String, AccountView>,
    pub orders: BTreeMap<String, Order>,
    pub supply: Supply,
    pub emission: Emission,
    /// What happened, with the time since the start at which it did.
    pub events: Vec<TimedEvent>,
}

/// An event and when it happened.
#[derive(Clone, Debug, Serialize)]
pub struct TimedEvent {
    pub at_ms: u64,
    #[serde(flatten)]
    pub event: Event,
}

struct Story {
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    block: BlockContext,
    block_ms: u64,
    names: Names,
    labels: BTreeMap<Address, String>,
    failures: Vec<Failure>,
    broken: Option<String>,
    events: Vec<TimedEvent>,
    steps: Vec<StepReport>,
    finished: BTreeMap<OrderId, Order>,
}

/// Plays a scenario; `directory` is where it looks for its profile.
///
/// # Errors
/// If the scenario makes no sense. What does not come as expected is in the report.
pub fn run(scenario: &Scenario, directory: &Path) -> Result<Report, ScenarioError> {
    let mut story = Story::begin(scenario, directory)?;
    let serving: Vec<_> = scenario.accounts.iter().filter(|account| !account.serves.is_empty()).collect();
    if !serving.is_empty() {
        let calls = serving.iter().map(|account| story.serve(account)).collect::<Result<Vec<_>, _>>();
        let calls = calls.map_err(ScenarioError::Meaningless)?;
        for receipt in story.execute(STEP_MS, &calls) {
            if let Some(error) = receipt.error {
                story.fail(0, format!("{} cannot serve: {error}", story.label(&receipt.sender)));
            }
        }
    }
    for (index, step) in scenario.steps.iter().enumerate() {
        story.step(index + 1, step).map_err(|what| {
            let note = step.note.as_ref().map_or(String::new(), |note| format!(" ({note})"));
            ScenarioError::Meaningless(format!("step {}{note}: {what}", index + 1))
        })?;
    }
    Ok(story.end(scenario.title.clone()))
}

/// The profile's parameters with the scenario's changes.
fn params(scenario: &Scenario, directory: &Path) -> Result<Params, ScenarioError> {
    let failed = |reason: String| ScenarioError::Profile { name: scenario.profile.clone(), reason };
    let text = profile_text(&scenario.profile, directory)?;
    let profile = profile::parse_with(&text, scenario.dev, scenario.params.clone());
    let mut params = profile.map_err(|error| failed(error.to_string()))?.params;
    // Time passes in blocks of the scenario's length: none of it is a standstill.
    params.active_step_ms_max = params.active_step_ms_max.max(scenario.block);
    Ok(params)
}

impl Story {
    fn begin(scenario: &Scenario, directory: &Path) -> Result<Self, ScenarioError> {
        let unknown = |what: String| ScenarioError::Meaningless(what);
        let mut accounts: BTreeMap<String, Address> =
            scenario.accounts.iter().map(|account| (account.name.clone(), address_of(&account.name))).collect();
        if accounts.len() < scenario.accounts.len() {
            return Err(unknown("two accounts have the same name".into()));
        }
        let find = |name: &str| {
            accounts.get(name).copied().ok_or_else(|| unknown(format!("the models name {name:?}, who has no account")))
        };
        let mut models = Vec::new();
        for model in &scenario.models {
            let owner = find(&model.owner)?;
            models.push(GenesisModel {
                name: model.name.clone(),
                owner,
                package: althing_content::file_cid(model.name.as_bytes()),
                fee: model.fee,
                payee: model.payee.as_deref().map_or(Ok(owner), find)?,
                verification: model.verification,
                reward: model.reward,
            });
        }
        let account = |entry: &AccountEntry| -> Result<GenesisAccount, ScenarioError> {
            Ok(GenesisAccount {
                address: address_of(&entry.name),
                free: entry.free,
                bond: entry.bond,
                session_keys: Vec::new(),
                assets: entry.assets.iter().map(genesis_asset).collect::<Result<_, _>>()?,
            })
        };
        let of_kind = |is: fn(&AccountEntry) -> bool| {
            scenario.accounts.iter().filter(|entry| is(entry)).map(|entry| address_of(&entry.name)).collect()
        };
        let genesis = Genesis {
            network: "scenario".into(),
            time_ms: START_MS,
            coordinators: String::new(),
            accounts: scenario.accounts.iter().map(account).collect::<Result<_, _>>()?,
            models: models.clone(),
            voters: of_kind(|account| account.voter),
            coordinator_accounts: of_kind(|account| account.coordinator),
            params: params(scenario, directory)?,
        };
        let state = genesis_state(&genesis).map_err(|error| unknown(error.to_string()))?;
        accounts.insert("governor".into(), TREASURY);
        accounts.insert("treasury".into(), TREASURY);
        let chain = genesis.chain_id();
        let beacon = Hash::of(&[b"althing/scenario/beacon", chain.as_bytes()]);
        Ok(Self {
            state,
            block: BlockContext { chain, height: 0, time_ms: START_MS, view: 0, beacon, beacon_view: 0 },
            block_ms: scenario.block,
            labels: accounts.iter().map(|(name, address)| (*address, name.clone())).collect(),
            names: Names {
                chain,
                accounts,
                models: models.iter().map(|model| (model.name.clone(), model.id())).collect(),
                orders: BTreeMap::new(),
                now_ms: START_MS,
                rounds: BTreeMap::new(),
            },
            failures: Vec::new(),
            broken: None,
            events: Vec::new(),
            steps: Vec::new(),
            finished: BTreeMap::new(),
        })
    }

    fn label(&self, address: &Address) -> String {
        self.labels.get(address).cloned().unwrap_or_else(|| address.to_string())
    }

    fn fail(&mut self, step: usize, what: String) {
        self.failures.push(Failure { step, what });
    }

    fn serve(&self, account: &AccountEntry) -> Result<(Address, Call), String> {
        let models = account.serves.iter().map(|name| self.names.model(name)).collect::<Result<_, _>>()?;
        let call = Call::ModelSupport { models, endpoint: String::new() };
        Ok((address_of(&account.name), call))
    }

    fn elapsed_ms(&self) -> u64 {
        self.block.time_ms - START_MS
    }

    /// One block `after_ms` later.
    fn execute(&mut self, after_ms: u64, calls: &[(Address, Call)]) -> Vec<TxReceipt> {
        self.block.height += 1;
        self.block.time_ms += after_ms;
        self.block.view += 1;
        self.block.beacon_view = self.block.view - 1;
        self.block.beacon = Hash::of(&[self.block.beacon.as_bytes(), &self.block.view.to_be_bytes()]);
        let mut nonces = BTreeMap::new();
        let mut txs = Vec::new();
        for (account, call) in calls {
            let nonce = nonces.entry(*account).or_insert_with(|| query::account(&self.state, account).nonce);
            let auth = Auth::Wallet { account: *account, signature: [0; 65] };
            txs.push(SignedTx { call: call.clone(), nonce: *nonce, expires_at_ms: u64::MAX, auth });
            *nonce += 1;
        }
        let output = execute_block(&self.state, &self.block, &txs);
        apply(&mut self.state, output.writes);
        let at_ms = self.elapsed_ms();
        for event in output.events {
            if let Event::OrderClaimed { order, .. } | Event::OrderRefunded { order, .. } = &event
                && let Some(order) = query::order(&self.state, order)
            {
                self.finished.insert(order.id, order);
            }
            self.events.push(TimedEvent { at_ms, event });
        }
        if (!calls.is_empty() || self.block.height.is_multiple_of(CHECK_EVERY)) && self.broken.is_none() {
            self.broken = invariants::check(&self.state).err();
        }
        output.receipts
    }

    /// Blocks for so long.
    fn wait(&mut self, wait_ms: u64) {
        let until = self.block.time_ms + wait_ms;
        while self.block.time_ms < until {
            self.execute(self.block_ms.min(until - self.block.time_ms), &[]);
        }
    }

    fn step(&mut self, number: usize, step: &crate::file::StepEntry) -> Result<(), String> {
        // The step's block comes at its time; what lies before it passes in blocks.
        let after_ms = match (step.at, step.after) {
            (Some(_), Some(_)) => return Err("a step has either `at` or `after`".into()),
            (Some(at), None) => {
                let now = self.elapsed_ms();
                at.checked_sub(now).ok_or_else(|| format!("it is {now} ms already, too late for {at} ms"))?
            }
            (None, Some(after)) => after,
            (None, None) if step.wait.is_some() => 0,
            (None, None) => STEP_MS,
        };
        let acts = step.call.is_some() || !step.block.is_empty() || step.solve.is_some();
        let last_ms = if acts { after_ms.min(STEP_MS) } else { 0 };
        self.wait(after_ms.saturating_sub(last_ms));
        if let Some(wait_ms) = step.wait {
            self.wait(wait_ms);
        }
        let mut reports = Vec::new();
        if let Some(call) = &step.call {
            reports = self.calls(number, last_ms, std::slice::from_ref(call))?;
        } else if !step.block.is_empty() {
            reports = self.calls(number, last_ms, &step.block)?;
        } else if let Some(solve) = &step.solve {
            for (index, fields) in solve_calls(&solve.by, &solve.order, &solve.answer).into_iter().enumerate() {
                let after_ms = if index == 0 { last_ms } else { STEP_MS };
                reports.extend(self.calls(number, after_ms, &[fields])?);
            }
        }
        let at_ms = self.elapsed_ms();
        self.steps.push(StepReport { step: number, note: step.note.clone(), at_ms, calls: reports });
        for (path, expected) in &step.expect {
            self.expect(number, path, expected)?;
        }
        Ok(())
    }

    /// The calls of one block.
    fn calls(&mut self, number: usize, after_ms: u64, entries: &[CallEntry]) -> Result<Vec<CallReport>, String> {
        for entry in entries {
            // A commitment before the seed is drawn would be refused: blocks pass until it is.
            if entry.name == "order_commit"
                && let Some(toml::Value::String(text)) = entry.fields.get("order")
                && let Some(name) = text.strip_prefix('$')
            {
                let id = self.names.order(name)?;
                for _ in 0..4 {
                    if query::order(&self.state, &id).is_none_or(|order| order.seed.is_some()) {
                        break;
                    }
                    self.execute(STEP_MS, &[]);
                }
            }
        }
        self.names.now_ms = self.block.time_ms + after_ms.max(1);
        self.names.rounds = query::cases(&self.state, None, usize::MAX)
            .into_iter()
            .filter_map(|case| Some((case.order, case.jury?.round)))
            .collect();
        let calls = entries.iter().map(|entry| self.call(entry)).collect::<Result<Vec<_>, _>>()?;
        let receipts = self.execute(after_ms.max(1), &calls);
        let mut reports = Vec::new();
        for ((entry, (_, call)), receipt) in entries.iter().zip(&calls).zip(receipts) {
            let error = receipt.error.as_ref().map(name_of);
            match (&entry.error, &error) {
                (None, Some(_)) => {
                    let error = receipt.error.as_ref().map(ToString::to_string).unwrap_or_default();
                    self.fail(number, format!("{} by {} failed: {error}", entry.name, entry.by));
                }
                (Some(expected), None) => {
                    self.fail(number, format!("{} by {} was to fail with {expected}", entry.name, entry.by));
                }
                (Some(expected), Some(got)) if expected != got => {
                    self.fail(number, format!("{} by {}: {got} instead of {expected}", entry.name, entry.by));
                }
                _ => {}
            }
            if let (Some(name), Some(order)) = (&entry.order, receipt.order) {
                self.names.orders.insert(name.clone(), order);
            }
            reports.push(CallReport {
                by: entry.by.clone(),
                summary: call.summary(),
                call: entry.name.clone(),
                error: receipt.error,
            });
        }
        Ok(reports)
    }

    /// A call with all its short forms resolved.
    fn call(&self, entry: &CallEntry) -> Result<(Address, Call), String> {
        let by = self.names.account(&entry.by)?;
        let mut fields = entry.fields.clone();
        if let Some(toml::Value::String(text)) = fields.get("input").filter(|_| entry.name == "order_submit") {
            let bytes: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            let inline = toml::Table::from_iter([("kind".into(), "inline".into()), ("bytes".into(), bytes.into())]);
            fields.insert("input".into(), inline.into());
        }
        let mut object = self.names.fields(&fields, &by)?;
        if entry.name == "order_submit" {
            let deadline_ms = self.names.now_ms + query::params(&self.state).deadline_min_ms.max(60_000);
            let fee = object.entry("fee").or_insert_with(|| "0".into()).clone();
            let defaults = json!({
                "max_total": fee, "lane": {"lane": "open"}, "deadline_ms": deadline_ms, "agreements": 0,
                "seed": null, "parent": null, "budget": null,
            });
            if let Value::Object(defaults) = defaults {
                for (key, value) in defaults {
                    object.entry(key).or_insert(value);
                }
            }
        }
        object.insert("call".into(), entry.name.clone().into());
        let call = serde_json::from_value(Value::Object(object)).map_err(|error| format!("{}: {error}", entry.name))?;
        Ok((by, call))
    }

    /// Compares what a path leads to with what was expected.
    fn expect(&mut self, number: usize, path: &str, expected: &toml::Value) -> Result<(), String> {
        self.names.now_ms = self.block.time_ms;
        let expected = self.names.value(expected, &Address::ZERO, None)?;
        let (root, rest) = path.split_once('.').unwrap_or((path, ""));
        let document = self.document(root)?;
        let mut found = Some(&document);
        for part in rest.split('.').filter(|part| !part.is_empty()) {
            found = found.and_then(|value| match part.parse::<usize>() {
                Ok(index) => value.get(index),
                Err(_) => value.get(part),
            });
        }
        match found {
            None => Err(format!("{path} leads nowhere: {document}")),
            Some(found) if *found != expected => {
                let told = |value: &Value| tell(value, &expected);
                let what = format!("{path} is {}, not {}", told(found), told(&expected));
                self.fail(number, what);
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    /// What the first part of a path names.
    fn document(&self, root: &str) -> Result<Value, String> {
        let value = |value: Result<Value, serde_json::Error>| value.map_err(|error| error.to_string());
        if root == "supply" {
            return value(serde_json::to_value(query::supply(&self.state)));
        }
        if root == "emission" {
            return value(serde_json::to_value(query::emission(&self.state)));
        }
        if root == "params" {
            return value(serde_json::to_value(query::params(&self.state)));
        }
        if let Some(name) = root.strip_prefix('$') {
            let id = self.names.order(name)?;
            let order = query::order(&self.state, &id).or_else(|| self.finished.get(&id).cloned());
            let mut document = value(serde_json::to_value(order))?;
            document["case"] = value(serde_json::to_value(query::case(&self.state, &id)))?;
            document["state"] = document["state"]["state"].clone();
            return Ok(document);
        }
        if root.starts_with("pool:") {
            let id = self.names.pool(root)?;
            return value(serde_json::to_value(query::pool(&self.state, &id)));
        }
        if let Some(name) = root.strip_prefix("model:") {
            let id = self.names.model(name)?;
            return value(serde_json::to_value(query::model(&self.state, &id)));
        }
        let address = self.names.account(root)?;
        let mut document = value(serde_json::to_value(query::account_view(&self.state, &address)))?;
        document["provider"] = value(serde_json::to_value(query::provider(&self.state, &address)))?;
        Ok(document)
    }

    fn end(mut self, title: String) -> Report {
        if self.broken.is_none() {
            self.broken = invariants::check(&self.state).err();
        }
        let accounts = self.names.accounts.iter().filter(|(name, _)| *name != "governor");
        let orders = self.names.orders.iter().filter_map(|(name, id)| {
            let order = query::order(&self.state, id).or_else(|| self.finished.get(id).cloned())?;
            Some((name.clone(), order))
        });
        Report {
            title,
            passed: self.failures.is_empty() && self.broken.is_none(),
            invariants: self.broken.clone().unwrap_or_else(|| "hold".into()),
            blocks: self.block.height,
            elapsed_ms: self.elapsed_ms(),
            state: digest(&self.state),
            accounts: accounts.map(|(name, a)| (name.clone(), query::account_view(&self.state, a))).collect(),
            orders: orders.collect(),
            supply: query::supply(&self.state),
            emission: query::emission(&self.state),
            failures: self.failures,
            steps: self.steps,
            events: self.events,
        }
    }
}

/// What an account holds of a test asset, written like an amount of tokens.
fn genesis_asset((asset, text): (&AssetId, &String)) -> Result<GenesisAsset, ScenarioError> {
    let amount = text.strip_suffix(" ALTH").unwrap_or(text).parse();
    let amount = amount.map_err(|error| ScenarioError::Meaningless(format!("{asset}: {error}")))?;
    Ok(GenesisAsset { asset: *asset, amount })
}

/// A hash over all entries of a state, in the order of their keys.
fn digest(state: &BTreeMap<Vec<u8>, Vec<u8>>) -> Hash {
    state.iter().fold(Hash::ZERO, |all, (key, value)| Hash::of(&[all.as_bytes(), &encode(&(key, value))]))
}

/// Commit and reveal.
fn solve_calls(by: &str, order: &str, answer: &str) -> [CallEntry; 2] {
    let call = |name: &str, fields: &[(&str, toml::Value)]| CallEntry {
        by: by.into(),
        name: name.into(),
        order: None,
        error: None,
        fields: fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
    };
    let order = toml::Value::from(format!("${order}"));
    let size = toml::Value::Integer(i64::try_from(answer.len()).unwrap_or(i64::MAX));
    [
        call("order_commit", &[("order", order.clone()), ("commitment", format!("commitment:{answer}").into())]),
        call(
            "order_reveal",
            &[
                ("order", order),
                ("output", format!("cid:{answer}").into()),
                ("output_size", size),
                ("salt", "salt".into()),
            ],
        ),
    ]
}

/// The name of an error, as scenarios expect it.
fn name_of(error: &LedgerError) -> String {
    let value = serde_json::to_value(error).unwrap_or_default();
    value["error"].as_str().unwrap_or("unknown").to_owned()
}

/// A value for people: amounts in tokens, if amounts are compared.
fn tell(value: &Value, expected: &Value) -> String {
    let units = |value: &Value| value.as_str().and_then(|text| text.parse::<u128>().ok());
    match (units(value), units(expected)) {
        (Some(amount), Some(_)) => format!("{} ALTH", althing_types::Amount(amount)),
        _ => value.to_string(),
    }
}
