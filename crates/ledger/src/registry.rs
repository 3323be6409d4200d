//! Models: immutable packages with mutable terms, and who says that it serves them. (T-13, T-20)

use crate::{
    costs,
    exec::{Done, Exec},
    governance, shares, staking,
    state::{Map, StateRead},
};
use althing_types::{Address, Amount, Cid, Event, LedgerError, Model, ModelId, ModelReward, Provider, Verification};

/// Most models that one provider may say it supports.
pub const MODELS_SUPPORTED_MAX: usize = 16;
/// Longest model name, bytes.
pub const MODEL_NAME_BYTES_MAX: usize = 64;
/// Longest endpoint URL, bytes.
pub const ENDPOINT_BYTES_MAX: usize = 200;

const MODELS: Map<ModelId, Model> = Map::new(0x04);
/// Who says that it serves a model: what juries are drawn from. (T-7)
const SUPPORTERS: Map<(ModelId, Address), ()> = Map::new(0x09);
/// Names by hash: each belongs to one model.
const NAMES: Map<althing_types::Hash, ModelId> = Map::new(0x05);

fn name_key(name: &str) -> althing_types::Hash {
    althing_types::Hash::of(&[b"althing/model-name/v1", name.as_bytes()])
}

/// The model with this id.
pub fn model(state: &dyn StateRead, id: &ModelId) -> Option<Model> {
    MODELS.get(state, id)
}

/// The model with this name.
pub fn model_by_name(state: &dyn StateRead, name: &str) -> Option<Model> {
    NAMES.get(state, &name_key(name)).and_then(|id| model(state, &id))
}

/// At most `limit` supporters of a model, in address order from `from` on and then from the first.
pub fn supporters_from(state: &dyn StateRead, model: &ModelId, from: &Address, limit: usize) -> Vec<Address> {
    let (first, last) = ((*model, Address::ZERO), (*model, Address([0xff; 20])));
    let start = (*model, *from);
    let mut found = SUPPORTERS.range(state, &start, &last, limit);
    found.extend(SUPPORTERS.range(state, &first, &start, limit - found.len()));
    found.into_iter().map(|((_, address), ())| address).collect()
}

/// Models in id order.
pub fn all(state: &dyn StateRead, limit: usize) -> Vec<Model> {
    MODELS.first(state, limit).into_iter().map(|(_, model)| model).collect()
}

/// [`althing_types::Call::ModelRegister`]. (T-13)
pub(crate) fn register(
    exec: &mut Exec<'_>,
    owner: Address,
    name: String,
    package: Cid,
    fee: Amount,
    payee: Address,
    verification: Verification,
) -> Done {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_./".contains(&b);
    if name.is_empty() || name.len() > MODEL_NAME_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(LedgerError::ModelNameInvalid(name.chars().take(MODEL_NAME_BYTES_MAX).collect()));
    }
    let id = ModelId::derive(&owner, &package);
    if MODELS.has(&exec.state, &id) {
        return Err(LedgerError::ModelExists);
    }
    if NAMES.has(&exec.state, &name_key(&name)) {
        return Err(LedgerError::ModelNameTaken(name));
    }
    let deposit = costs::deposit(exec, &owner)?;
    let model = Model {
        id,
        owner,
        name: name.clone(),
        package,
        verification,
        fee,
        payee,
        reward: None,
        supporters: 0,
        supporters_stake: Amount::ZERO,
        runs: 0,
        deposit,
    };
    MODELS.set(&mut exec.state, &id, &model);
    NAMES.set(&mut exec.state, &name_key(&name), &id);
    exec.emit(Event::ModelRegistered { model: id, name, package });
    Ok(())
}

/// [`althing_types::Call::ModelTermsSet`]: later orders only; the terms at submission bind. (T-13)
pub(crate) fn set_terms(exec: &mut Exec<'_>, sender: Address, id: ModelId, fee: Amount, payee: Address) -> Done {
    let model = model(&exec.state, &id).ok_or(LedgerError::UnknownModel(id))?;
    if model.owner != sender {
        return Err(LedgerError::NotOwner);
    }
    if shares::dao(&exec.state, &id).is_some() {
        return Err(LedgerError::ModelIsDao);
    }
    change_terms(exec, model, Some(fee), payee);
    Ok(())
}

/// Writes new terms, which the caller had decided; without a fee, the old one stays. (T-13, T-14)
pub(crate) fn change_terms(exec: &mut Exec<'_>, mut model: Model, fee: Option<Amount>, payee: Address) {
    model.fee = fee.unwrap_or(model.fee);
    model.payee = payee;
    MODELS.set(&mut exec.state, &model.id, &model);
    exec.emit(Event::ModelTermsSet { model: model.id, fee: model.fee, payee });
}

/// [`althing_types::Call::ModelSupport`]: replaces the provider's list. (T-13)
pub(crate) fn support(exec: &mut Exec<'_>, sender: Address, mut models: Vec<ModelId>, endpoint: String) -> Done {
    let mut provider = staking::fit_for_work(exec, &sender)?;
    models.sort_unstable();
    models.dedup();
    if models.len() > MODELS_SUPPORTED_MAX {
        return Err(LedgerError::TooManyModels { max: MODELS_SUPPORTED_MAX as u32 });
    }
    let is_url = endpoint.starts_with("http://") || endpoint.starts_with("https://");
    let printable = endpoint.bytes().all(|b| b.is_ascii_graphic());
    if endpoint.len() > ENDPOINT_BYTES_MAX || !printable || (!endpoint.is_empty() && !is_url) {
        return Err(LedgerError::EndpointInvalid);
    }
    if let Some(unknown) = models.iter().find(|id| !MODELS.has(&exec.state, id)) {
        return Err(LedgerError::UnknownModel(*unknown));
    }
    count_support(exec, &provider, false);
    provider.models = models.clone();
    provider.endpoint = endpoint;
    count_support(exec, &provider, true);
    staking::store(exec, &provider);
    exec.emit(Event::ModelSupported { provider: sender, models });
    Ok(())
}

fn count_support(exec: &mut Exec<'_>, provider: &Provider, joins: bool) {
    for id in &provider.models {
        let Some(mut model) = model(&exec.state, id) else { continue };
        if joins {
            model.supporters += 1;
            model.supporters_stake = model.supporters_stake.checked_add(provider.stake()).unwrap_or(Amount::MAX);
            SUPPORTERS.set(&mut exec.state, &(*id, provider.account), &());
        } else {
            model.supporters = model.supporters.saturating_sub(1);
            model.supporters_stake = model.supporters_stake.saturating_sub(provider.stake());
            SUPPORTERS.remove(&mut exec.state, &(*id, provider.account));
        }
        MODELS.set(&mut exec.state, id, &model);
    }
}

/// Keeps the public stake behind each model in step with its supporters'. (T-13)
pub(crate) fn supporter_stake_changed(exec: &mut Exec<'_>, models: &[ModelId], before: Amount, after: Amount) {
    for id in models {
        let Some(mut model) = model(&exec.state, id) else { continue };
        let without = model.supporters_stake.saturating_sub(before);
        model.supporters_stake = without.checked_add(after).unwrap_or(Amount::MAX);
        MODELS.set(&mut exec.state, id, &model);
    }
}

/// [`althing_types::Call::ModelRewardSet`]: only governance enables rewards. (T-6)
pub(crate) fn set_reward(exec: &mut Exec<'_>, sender: Address, id: ModelId, reward: Option<ModelReward>) -> Done {
    governance::only_governor(&sender)?;
    let mut model = model(&exec.state, &id).ok_or(LedgerError::UnknownModel(id))?;
    model.reward = reward;
    MODELS.set(&mut exec.state, &id, &model);
    exec.emit(Event::ModelRewardSet { model: id, reward });
    Ok(())
}

/// Counts a settled run.
pub(crate) fn count_run(exec: &mut Exec<'_>, id: &ModelId) {
    if let Some(mut model) = model(&exec.state, id) {
        model.runs += 1;
        MODELS.set(&mut exec.state, id, &model);
    }
}
