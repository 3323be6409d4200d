//! Questions about the economy that the roles' daemons do without: delegations, governance,
//! model DAOs, the market. The command line and wallets ask them.

use crate::{ClientError, HttpClient, LedgerClient};
use althing_types::{
    Address, Amount, AssetId, Dao, Drip, Holding, MarketPool, ModelId, PoolId, ProposalVote,
    api::{DelegationView, HolderView, Power, ProposalSummary, ProposalView, Protocol, SwapQuote},
};
use async_trait::async_trait;

/// Which delegations to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delegations {
    /// What an account delegated.
    By(Address),
    /// What is delegated to a provider.
    To(Address),
}

/// What can be asked about the economy, beside [`LedgerClient`]'s questions. All answers are of finalized
/// state.
#[async_trait]
pub trait EconomyClient: LedgerClient {
    async fn delegations(&self, which: Delegations) -> Result<Vec<DelegationView>, ClientError>;
    /// What an account can say in votes on proposals. (G-1)
    async fn power(&self, address: Address) -> Result<Power, ClientError>;
    /// Newest first.
    async fn proposals(&self) -> Result<Vec<ProposalSummary>, ClientError>;
    async fn proposal(&self, number: u64) -> Result<ProposalView, ClientError>;
    /// [`ClientError::NotFound`] if the account did not vote on the proposal.
    async fn proposal_vote(&self, number: u64, voter: Address) -> Result<ProposalVote, ClientError>;
    /// Which version runs, and which the node can run. (G-2)
    async fn protocol(&self) -> Result<Protocol, ClientError>;
    async fn daos(&self) -> Result<Vec<Dao>, ClientError>;
    async fn dao(&self, model: ModelId) -> Result<Dao, ClientError>;
    /// Who holds a model's shares. (T-14)
    async fn dao_holders(&self, model: ModelId) -> Result<Vec<HolderView>, ClientError>;
    async fn pools(&self) -> Result<Vec<MarketPool>, ClientError>;
    async fn pool(&self, id: PoolId) -> Result<MarketPool, ClientError>;
    /// What a swap would give now; refused for the reasons for which the swap would be. (G-4)
    async fn quote(&self, asset_in: AssetId, amount_in: Amount, asset_out: AssetId) -> Result<SwapQuote, ClientError>;
    /// What an account has beside the native token. (E-4)
    async fn holdings(&self, address: Address) -> Result<Vec<Holding>, ClientError>;
    /// The liquidity drip. (E-2)
    async fn drip(&self) -> Result<Drip, ClientError>;
}

#[async_trait]
impl EconomyClient for HttpClient {
    async fn delegations(&self, which: Delegations) -> Result<Vec<DelegationView>, ClientError> {
        self.get(match which {
            Delegations::By(address) => format!("/v1/delegations?by={address}"),
            Delegations::To(address) => format!("/v1/delegations?to={address}"),
        })
        .await
    }

    async fn power(&self, address: Address) -> Result<Power, ClientError> {
        self.get(format!("/v1/power/{address}")).await
    }

    async fn proposals(&self) -> Result<Vec<ProposalSummary>, ClientError> {
        self.get("/v1/proposals").await
    }

    async fn proposal(&self, number: u64) -> Result<ProposalView, ClientError> {
        self.get(format!("/v1/proposals/{number}")).await
    }

    async fn proposal_vote(&self, number: u64, voter: Address) -> Result<ProposalVote, ClientError> {
        self.get(format!("/v1/proposals/{number}/votes/{voter}")).await
    }

    async fn protocol(&self) -> Result<Protocol, ClientError> {
        self.get("/v1/protocol").await
    }

    async fn daos(&self) -> Result<Vec<Dao>, ClientError> {
        self.get("/v1/daos").await
    }

    async fn dao(&self, model: ModelId) -> Result<Dao, ClientError> {
        self.get(format!("/v1/daos/{model}")).await
    }

    async fn dao_holders(&self, model: ModelId) -> Result<Vec<HolderView>, ClientError> {
        self.get(format!("/v1/daos/{model}/holders")).await
    }

    async fn pools(&self) -> Result<Vec<MarketPool>, ClientError> {
        self.get("/v1/pools").await
    }

    async fn pool(&self, id: PoolId) -> Result<MarketPool, ClientError> {
        self.get(format!("/v1/pools/{id}")).await
    }

    async fn quote(&self, asset_in: AssetId, amount_in: Amount, asset_out: AssetId) -> Result<SwapQuote, ClientError> {
        let Amount(units) = amount_in;
        self.get(format!("/v1/quote?asset_in={asset_in}&amount_in={units}&asset_out={asset_out}")).await
    }

    async fn holdings(&self, address: Address) -> Result<Vec<Holding>, ClientError> {
        self.get(format!("/v1/accounts/{address}/holdings")).await
    }

    async fn drip(&self) -> Result<Drip, ClientError> {
        self.get("/v1/drip").await
    }
}
