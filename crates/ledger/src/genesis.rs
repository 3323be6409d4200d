//! The first state, from a genesis. (G-1)

use crate::{
    BlockContext, CLOCK, ChainClock, Exec, PARAMS, accounts, assets, emission, inputs, invariants, registry, staking,
    supply, upgrades,
};
use althing_types::{Amount, AssetId, Genesis, Hash, LedgerError, Params, params::ParamsError};
use std::collections::BTreeMap;

/// Why a genesis cannot start a network.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    #[error("the parameters do not fit together: {0}")]
    Params(#[from] ParamsError),
    #[error("{what}: {source}")]
    Call { what: String, source: LedgerError },
    #[error("{what}: only test assets can be endowed, not {asset}")]
    Asset { what: String, asset: AssetId },
    #[error("the first state is not sound: {0}")]
    Unsound(String),
}

/// Builds the first state.
///
/// # Errors
/// If the parameters contradict each other or an entry is one that the ledger would refuse.
pub fn genesis_state(genesis: &Genesis) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, GenesisError> {
    genesis.params.validate()?;
    let block = BlockContext {
        chain: genesis.chain_id(),
        height: 0,
        time_ms: genesis.time_ms,
        view: 0,
        beacon: Hash::ZERO,
        beacon_view: 0,
    };
    let empty = BTreeMap::new();
    // Nobody leaves deposits for what is there from the start.
    let params = Params { deposit_object: Amount::ZERO, ..genesis.params.clone() };
    let mut exec = Exec::new(&empty, &block, &params);
    PARAMS.set(&mut exec.state, &(), &genesis.params);
    CLOCK.set(&mut exec.state, &(), &ChainClock { height: 0, time_ms: genesis.time_ms, active_ms: genesis.time_ms });
    upgrades::open(&mut exec);
    let holdings = genesis.accounts.iter().map(|entry| entry.free.checked_add(entry.bond));
    let total = holdings.chain([Some(Amount::ZERO)]).reduce(|a, b| a?.checked_add(b?)).flatten();
    let too_much = || GenesisError::Call { what: "all accounts together".into(), source: LedgerError::Overflow };
    emission::open(&mut exec, total.ok_or_else(too_much)?);
    inputs::open(&mut exec, &genesis.coordinator_accounts);
    for voter in &genesis.voters {
        staking::add_voter(&mut exec, *voter);
    }
    for entry in &genesis.accounts {
        let failed = |source| GenesisError::Call { what: format!("account {}", entry.address), source };
        let total = entry.free.checked_add(entry.bond).ok_or(failed(LedgerError::Overflow))?;
        accounts::endow(&mut exec, &entry.address, total).map_err(failed)?;
        if !entry.bond.is_zero() {
            staking::bond(&mut exec, entry.address, entry.bond).map_err(failed)?;
        }
        for holding in &entry.assets {
            let AssetId::Test(_) = holding.asset else {
                return Err(GenesisError::Asset { what: format!("account {}", entry.address), asset: holding.asset });
            };
            assets::endow(&mut exec, &entry.address, holding.asset, holding.amount).map_err(failed)?;
        }
        for key in &entry.session_keys {
            accounts::session_key_add(&mut exec, entry.address, key.key, key.scope, key.spend_limit, key.expires_at_ms)
                .map_err(failed)?;
        }
    }
    for model in &genesis.models {
        registry::register(
            &mut exec,
            model.owner,
            model.name.clone(),
            model.package,
            model.fee,
            model.payee,
            model.verification,
        )
        .and_then(|()| match model.reward {
            Some(reward) => registry::set_reward(&mut exec, supply::TREASURY, model.id(), Some(reward)),
            None => Ok(()),
        })
        .map_err(|source| GenesisError::Call { what: format!("model {}", model.name), source })?;
    }
    debug_assert!(supply::conserved(&supply::totals(&exec.state)));
    let mut state = BTreeMap::new();
    let writes = exec.state.into_writes();
    crate::apply(&mut state, writes);
    invariants::check(&state).map_err(GenesisError::Unsound)?;
    Ok(state)
}
