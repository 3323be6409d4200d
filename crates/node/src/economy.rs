//! The node's own [`EconomyClient`], and its routes.

use crate::{
    NodeClient,
    client::LIST_MAX,
    http::{ApiError, Client, answer, parse},
};
use althing_ledger::query;
use althing_sdk::{ClientError, Delegations, EconomyClient};
use althing_types::{
    Address, Amount, AssetId, Dao, Drip, Holding, LedgerError, MarketPool, ModelId, PoolId, ProposalVote,
    api::{DelegationView, HolderView, Power, ProposalSummary, ProposalView, Protocol, SwapQuote},
};
use async_trait::async_trait;
use axum::{
    Router,
    extract::{Path, Query, State},
    response::IntoResponse,
    routing::get,
};
use serde::Deserialize;
use std::sync::Arc;

/// Most proposals in a listing: each is read with its text.
const PROPOSALS_MAX: usize = 100;

/// A refusal of the ledger, under the name that it has in receipts.
fn refused(error: &LedgerError) -> ClientError {
    let code = serde_json::to_value(error).ok().and_then(|json| json["error"].as_str().map(str::to_owned));
    ClientError::Refused { code: code.unwrap_or_else(|| "refused".into()), message: error.to_string() }
}

// ---- client ----

#[async_trait]
impl EconomyClient for NodeClient {
    async fn delegations(&self, which: Delegations) -> Result<Vec<DelegationView>, ClientError> {
        self.read(|state| {
            let found = match which {
                Delegations::By(address) => query::delegations_by(state, &address, LIST_MAX),
                Delegations::To(address) => query::delegations_to(state, &address, LIST_MAX),
            };
            found.iter().map(|delegation| query::delegation_view(state, delegation)).collect()
        })
    }

    async fn power(&self, address: Address) -> Result<Power, ClientError> {
        self.read(|state| query::power_view(state, &address))
    }

    async fn proposals(&self) -> Result<Vec<ProposalSummary>, ClientError> {
        self.read(|state| query::proposal_summaries(state, None, PROPOSALS_MAX))
    }

    async fn proposal(&self, number: u64) -> Result<ProposalView, ClientError> {
        self.find(|| format!("proposal {number}"), |state| query::proposal(state, number))
    }

    async fn proposal_vote(&self, number: u64, voter: Address) -> Result<ProposalVote, ClientError> {
        let name = || format!("a vote of {voter} on proposal {number}");
        self.find(name, |state| query::proposal_vote(state, number, &voter))
    }

    async fn protocol(&self) -> Result<Protocol, ClientError> {
        self.read(|state| Protocol {
            version: query::version(state),
            supported: self.supported(),
            scheduled: query::upgrade_pending(state),
        })
    }

    async fn daos(&self) -> Result<Vec<Dao>, ClientError> {
        self.read(|state| query::daos(state, None, LIST_MAX))
    }

    async fn dao(&self, model: ModelId) -> Result<Dao, ClientError> {
        self.find(|| format!("a DAO of model {model}"), |state| query::dao(state, &model))
    }

    async fn dao_holders(&self, model: ModelId) -> Result<Vec<HolderView>, ClientError> {
        self.find(
            || format!("a DAO of model {model}"),
            |state| query::dao(state, &model).map(|_| query::holder_views(state, &model, None, LIST_MAX)),
        )
    }

    async fn pools(&self) -> Result<Vec<MarketPool>, ClientError> {
        self.read(|state| query::pools(state, None, LIST_MAX))
    }

    async fn pool(&self, id: PoolId) -> Result<MarketPool, ClientError> {
        self.find(|| format!("pool {id}"), |state| query::pool(state, &id))
    }

    async fn quote(&self, asset_in: AssetId, amount_in: Amount, asset_out: AssetId) -> Result<SwapQuote, ClientError> {
        self.read(|state| query::quote(state, asset_in, amount_in, asset_out))?.map_err(|error| refused(&error))
    }

    async fn holdings(&self, address: Address) -> Result<Vec<Holding>, ClientError> {
        self.read(|state| query::holdings(state, &address, LIST_MAX))
    }

    async fn drip(&self) -> Result<Drip, ClientError> {
        self.read(|state| query::drip(state))
    }
}

// ---- routes ----

#[derive(Deserialize)]
struct DelegationsQuery {
    by: Option<String>,
    to: Option<String>,
}

#[derive(Deserialize)]
struct QuoteQuery {
    asset_in: String,
    amount_in: String,
    asset_out: String,
}

pub(crate) fn routes() -> Router<Arc<dyn EconomyClient>> {
    Router::new()
        .route("/v1/protocol", get(|State(c): Client| async move { answer(c.protocol().await) }))
        .route("/v1/delegations", get(delegations))
        .route("/v1/power/{address}", get(power))
        .route("/v1/proposals", get(|State(c): Client| async move { answer(c.proposals().await) }))
        .route("/v1/proposals/{number}", get(proposal))
        .route("/v1/proposals/{number}/votes/{address}", get(proposal_vote))
        .route("/v1/daos", get(|State(c): Client| async move { answer(c.daos().await) }))
        .route("/v1/daos/{model}", get(dao))
        .route("/v1/daos/{model}/holders", get(dao_holders))
        .route("/v1/pools", get(|State(c): Client| async move { answer(c.pools().await) }))
        .route("/v1/pools/{id}", get(pool))
        .route("/v1/quote", get(quote))
        .route("/v1/accounts/{address}/holdings", get(holdings))
        .route("/v1/drip", get(|State(c): Client| async move { answer(c.drip().await) }))
}

async fn delegations(State(c): Client, Query(query): Query<DelegationsQuery>) -> Result<impl IntoResponse, ApiError> {
    let which = match (query.by, query.to) {
        (Some(by), None) => Delegations::By(parse(&by)?),
        (None, Some(to)) => Delegations::To(parse(&to)?),
        _ => return Err(ApiError::bad_request("say either ?by=ADDRESS, a delegator, or ?to=ADDRESS, a provider")),
    };
    answer(c.delegations(which).await)
}

async fn power(State(c): Client, Path(address): Path<String>) -> Result<impl IntoResponse, ApiError> {
    answer(c.power(parse(&address)?).await)
}

async fn proposal(State(c): Client, Path(number): Path<String>) -> Result<impl IntoResponse, ApiError> {
    answer(c.proposal(parse(&number)?).await)
}

async fn proposal_vote(
    State(c): Client,
    Path((number, voter)): Path<(String, String)>,
) -> Result<impl IntoResponse, ApiError> {
    answer(c.proposal_vote(parse(&number)?, parse(&voter)?).await)
}

async fn dao(State(c): Client, Path(model): Path<String>) -> Result<impl IntoResponse, ApiError> {
    answer(c.dao(parse(&model)?).await)
}

async fn dao_holders(State(c): Client, Path(model): Path<String>) -> Result<impl IntoResponse, ApiError> {
    answer(c.dao_holders(parse(&model)?).await)
}

async fn pool(State(c): Client, Path(id): Path<String>) -> Result<impl IntoResponse, ApiError> {
    answer(c.pool(parse(&id)?).await)
}

async fn quote(State(c): Client, Query(query): Query<QuoteQuery>) -> Result<impl IntoResponse, ApiError> {
    let amount_in = Amount(parse(&query.amount_in).map_err(|_| {
        ApiError::bad_request(format!("amount_in is a number of base units, not {:?}", query.amount_in))
    })?);
    answer(c.quote(parse(&query.asset_in)?, amount_in, parse(&query.asset_out)?).await)
}

async fn holdings(State(c): Client, Path(address): Path<String>) -> Result<impl IntoResponse, ApiError> {
    answer(c.holdings(parse(&address)?).await)
}
