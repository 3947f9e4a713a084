//! The management protocol: what people and their programs may ask for, over gRPC. What is done is in [`crate::controller::management`].

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::{chains, domains, messages};
use crate::controller::Controller;
use crate::controller::management::condition::PerformanceQuery;
use crate::controller::management::{Actor, Answer, Asking, Listed};
use crate::database::Rejection;
use crate::management_proto::management_server::Management;
use crate::management_proto::{self as proto};

pub(super) struct Server {
    pub(super) controller: Arc<Controller>,
}

fn shown(metadata: &MetadataMap) -> Option<&str> {
    metadata.get("authorization")?.to_str().ok()
}

/// An answer with its revision, as a message.
fn reply<T, M>(
    answer: Result<Answer<T>, Rejection>,
    message: impl FnOnce(T, u64) -> M,
) -> Result<Response<M>, Status> {
    let answer = answer?;
    let modified = answer.modified.unwrap_or(0);
    let mut response = Response::new(message(answer.body, modified));
    let metadata = response.metadata_mut();
    metadata.insert("weft-revision", answer.revision.into());
    Ok(response)
}

/// Each of a list as a message.
fn each<T, M>(list: Vec<Listed<T>>, message: impl Fn(T, u64) -> M) -> Vec<M> {
    let list = list.into_iter();
    list.map(|(one, modified)| message(one, modified)).collect()
}

impl Server {
    /// Who asks, and for what.
    fn actor<T>(&self, request: Request<T>) -> Result<(Actor, T), Status> {
        let actor = self.controller.actor(shown(request.metadata()))?;
        Ok((actor, request.into_inner()))
    }

    /// Who asks for a change, and for which; `conditions` takes those out of it.
    fn asking<T>(
        &self,
        request: Request<T>,
        conditions: impl FnOnce(&mut T) -> (Option<u64>, Option<String>),
    ) -> Result<(Asking, T), Status> {
        let (actor, mut asked) = self.actor(request)?;
        let (expected, key) = conditions(&mut asked);
        let asking = Asking {
            actor,
            expected,
            key,
        };
        Ok((asking, asked))
    }
}

/// The conditions of a message that has them.
macro_rules! conditions {
    () => {
        |asked| (asked.if_modified, asked.idempotency_key.take())
    };
}

#[tonic::async_trait]
impl Management for Server {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::Revision, Status>> + Send>>;

    async fn get_domain(
        &self,
        request: Request<proto::GetDomainRequest>,
    ) -> Result<Response<proto::Domain>, Status> {
        let (actor, _) = self.actor(request)?;
        reply(self.controller.get_domain(&actor), messages::domain)
    }

    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::Status>, Status> {
        let (actor, _) = self.actor(request)?;
        reply(self.controller.get_status(&actor), messages::status)
    }

    async fn get_performance(
        &self,
        request: Request<proto::GetPerformanceRequest>,
    ) -> Result<Response<proto::Performance>, Status> {
        let (actor, asked) = self.actor(request)?;
        let query = PerformanceQuery {
            tenant: asked.tenant,
            router: asked.router,
            since: asked.since,
        };
        let answer = self.controller.get_performance(&actor, query).await;
        reply(answer, messages::performance)
    }

    async fn resume(
        &self,
        request: Request<proto::ResumeRequest>,
    ) -> Result<Response<proto::Domain>, Status> {
        let (asking, _) = self.asking(request, conditions!())?;
        reply(self.controller.resume(&asking).await, messages::domain)
    }

    async fn get_session_keys(
        &self,
        request: Request<proto::GetSessionKeysRequest>,
    ) -> Result<Response<proto::SessionKeys>, Status> {
        let (actor, _) = self.actor(request)?;
        let answer = self.controller.get_session_keys(&actor);
        reply(answer, messages::session_keys)
    }

    async fn replace_session_keys(
        &self,
        request: Request<proto::ReplaceSessionKeysRequest>,
    ) -> Result<Response<proto::Replacing>, Status> {
        let (asking, _) = self.asking(request, |asked| (None, asked.idempotency_key.take()))?;
        let replaced = self.controller.replace_session_keys(&asking).await;
        reply(replaced, |(), _| proto::Replacing {})
    }

    async fn list_routers(
        &self,
        request: Request<proto::ListRoutersRequest>,
    ) -> Result<Response<proto::ListRoutersResponse>, Status> {
        let (actor, _) = self.actor(request)?;
        reply(self.controller.list_routers(&actor), |all, _| {
            proto::ListRoutersResponse {
                routers: each(all, messages::router),
            }
        })
    }

    async fn get_router(
        &self,
        request: Request<proto::GetRouterRequest>,
    ) -> Result<Response<proto::Router>, Status> {
        let (actor, asked) = self.actor(request)?;
        let answer = self.controller.get_router(&actor, &asked.name);
        reply(answer, messages::router)
    }

    async fn change_router(
        &self,
        request: Request<proto::ChangeRouterRequest>,
    ) -> Result<Response<proto::Router>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self
            .controller
            .change_router(&asking, asked.name.clone(), asked)
            .await;
        reply(answer, messages::router)
    }

    async fn delete_router(
        &self,
        request: Request<proto::DeleteRouterRequest>,
    ) -> Result<Response<proto::Deleted>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self.controller.delete_router(&asking, asked.name).await;
        reply(answer, messages::deleted)
    }

    async fn list_tenants(
        &self,
        request: Request<proto::ListTenantsRequest>,
    ) -> Result<Response<proto::ListTenantsResponse>, Status> {
        let (actor, _) = self.actor(request)?;
        reply(self.controller.list_tenants(&actor), |all, _| {
            proto::ListTenantsResponse {
                tenants: each(all, messages::tenant),
            }
        })
    }

    async fn get_tenant(
        &self,
        request: Request<proto::GetTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let (actor, asked) = self.actor(request)?;
        let answer = self.controller.get_tenant(&actor, &asked.name);
        reply(answer, messages::tenant)
    }

    async fn create_tenant(
        &self,
        request: Request<proto::CreateTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self.controller.create_tenant(&asking, asked).await;
        reply(answer, messages::tenant)
    }

    async fn change_tenant(
        &self,
        request: Request<proto::ChangeTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self
            .controller
            .change_tenant(&asking, asked.name.clone(), asked)
            .await;
        reply(answer, messages::tenant)
    }

    async fn delete_tenant(
        &self,
        request: Request<proto::DeleteTenantRequest>,
    ) -> Result<Response<proto::Deleted>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self.controller.delete_tenant(&asking, asked.name).await;
        reply(answer, messages::deleted)
    }

    async fn list_grants(
        &self,
        request: Request<proto::ListGrantsRequest>,
    ) -> Result<Response<proto::ListGrantsResponse>, Status> {
        let (actor, asked) = self.actor(request)?;
        reply(
            self.controller.list_grants(&actor, &asked.tenant),
            |all, _| proto::ListGrantsResponse {
                grants: each(all, messages::grant),
            },
        )
    }

    async fn put_grant(
        &self,
        request: Request<proto::PutGrantRequest>,
    ) -> Result<Response<proto::Grant>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let (tenant, router) = (asked.tenant.clone(), asked.router.clone());
        let answer = self.controller.put_grant(&asking, tenant, router, asked);
        reply(answer.await, messages::grant)
    }

    async fn delete_grant(
        &self,
        request: Request<proto::DeleteGrantRequest>,
    ) -> Result<Response<proto::Deleted>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self
            .controller
            .delete_grant(&asking, asked.tenant, asked.router);
        reply(answer.await, messages::deleted)
    }

    async fn get_quota(
        &self,
        request: Request<proto::GetQuotaRequest>,
    ) -> Result<Response<proto::QuotaUse>, Status> {
        let (actor, asked) = self.actor(request)?;
        let answer = self.controller.get_quota(&actor, &asked.tenant);
        reply(answer, messages::quota)
    }

    async fn put_quota(
        &self,
        request: Request<proto::PutQuotaRequest>,
    ) -> Result<Response<proto::QuotaUse>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self
            .controller
            .put_quota(&asking, asked.tenant.clone(), asked)
            .await;
        reply(answer, messages::quota)
    }

    async fn delete_quota(
        &self,
        request: Request<proto::DeleteQuotaRequest>,
    ) -> Result<Response<proto::Deleted>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self.controller.delete_quota(&asking, asked.tenant).await;
        reply(answer, messages::deleted)
    }

    async fn list_attachments(
        &self,
        request: Request<proto::ListAttachmentsRequest>,
    ) -> Result<Response<proto::ListAttachmentsResponse>, Status> {
        let (actor, asked) = self.actor(request)?;
        reply(
            self.controller.list_attachments(&actor, &asked.tenant),
            |all, _| proto::ListAttachmentsResponse {
                attachments: each(all, messages::attachment),
            },
        )
    }

    async fn get_attachment(
        &self,
        request: Request<proto::GetAttachmentRequest>,
    ) -> Result<Response<proto::Attachment>, Status> {
        let (actor, asked) = self.actor(request)?;
        let answer = self
            .controller
            .get_attachment(&actor, &asked.tenant, &asked.router);
        reply(answer, messages::attachment)
    }

    async fn put_attachment(
        &self,
        request: Request<proto::PutAttachmentRequest>,
    ) -> Result<Response<proto::Attachment>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let (tenant, router) = (asked.tenant.clone(), asked.router.clone());
        let answer = self
            .controller
            .put_attachment(&asking, tenant, router, asked)
            .await;
        reply(answer, messages::attachment)
    }

    async fn delete_attachment(
        &self,
        request: Request<proto::DeleteAttachmentRequest>,
    ) -> Result<Response<proto::Deleted>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self
            .controller
            .delete_attachment(&asking, asked.tenant, asked.router)
            .await;
        reply(answer, messages::deleted)
    }

    async fn list_services(
        &self,
        request: Request<proto::ListServicesRequest>,
    ) -> Result<Response<proto::ListServicesResponse>, Status> {
        let (actor, asked) = self.actor(request)?;
        let answer = self.controller.list_services(&actor, &asked.tenant);
        reply(answer, |all, _| proto::ListServicesResponse {
            services: each(all, chains::service),
        })
    }

    async fn get_service(
        &self,
        request: Request<proto::GetServiceRequest>,
    ) -> Result<Response<proto::Service>, Status> {
        let (actor, one) = self.actor(request)?;
        let answer = self.controller.get_service(&actor, &one.tenant, &one.name);
        reply(answer, chains::service)
    }

    async fn put_service(
        &self,
        request: Request<proto::PutServiceRequest>,
    ) -> Result<Response<proto::Service>, Status> {
        let (asking, one) = self.asking(request, conditions!())?;
        let (tenant, name) = (one.tenant.clone(), one.name.clone());
        let put = self.controller.put_service(&asking, tenant, name, one);
        reply(put.await, chains::service)
    }

    async fn delete_service(
        &self,
        request: Request<proto::DeleteServiceRequest>,
    ) -> Result<Response<proto::Deleted>, Status> {
        let (asking, one) = self.asking(request, conditions!())?;
        let deleted = self
            .controller
            .delete_service(&asking, one.tenant, one.name);
        reply(deleted.await, messages::deleted)
    }

    async fn list_chains(
        &self,
        request: Request<proto::ListChainsRequest>,
    ) -> Result<Response<proto::ListChainsResponse>, Status> {
        let (actor, asked) = self.actor(request)?;
        let answer = self.controller.list_chains(&actor, &asked.tenant);
        reply(answer, |all, _| proto::ListChainsResponse {
            chains: each(all, chains::chain),
        })
    }

    async fn get_chain(
        &self,
        request: Request<proto::GetChainRequest>,
    ) -> Result<Response<proto::Chain>, Status> {
        let (actor, one) = self.actor(request)?;
        let answer = self.controller.get_chain(&actor, &one.tenant, &one.name);
        reply(answer, chains::chain)
    }

    async fn put_chain(
        &self,
        request: Request<proto::PutChainRequest>,
    ) -> Result<Response<proto::Chain>, Status> {
        let (asking, one) = self.asking(request, conditions!())?;
        let (tenant, name) = (one.tenant.clone(), one.name.clone());
        let put = self.controller.put_chain(&asking, tenant, name, one);
        reply(put.await, chains::chain)
    }

    async fn delete_chain(
        &self,
        request: Request<proto::DeleteChainRequest>,
    ) -> Result<Response<proto::Deleted>, Status> {
        let (asking, one) = self.asking(request, conditions!())?;
        let deleted = self.controller.delete_chain(&asking, one.tenant, one.name);
        reply(deleted.await, messages::deleted)
    }

    async fn list_tokens(
        &self,
        request: Request<proto::ListTokensRequest>,
    ) -> Result<Response<proto::ListTokensResponse>, Status> {
        let (actor, _) = self.actor(request)?;
        reply(self.controller.list_tokens(&actor), |all, _| {
            proto::ListTokensResponse {
                tokens: each(all, messages::token),
            }
        })
    }

    async fn create_token(
        &self,
        request: Request<proto::CreateTokenRequest>,
    ) -> Result<Response<proto::CreatedToken>, Status> {
        let (asking, asked) = self.asking(request, |_| (None, None))?;
        let answer = self.controller.create_token(&asking, asked).await;
        reply(answer, messages::created_token)
    }

    async fn delete_token(
        &self,
        request: Request<proto::DeleteTokenRequest>,
    ) -> Result<Response<proto::Deleted>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self.controller.delete_token(&asking, asked.id).await;
        reply(answer, messages::deleted)
    }

    async fn get_introduction(
        &self,
        request: Request<proto::GetIntroductionRequest>,
    ) -> Result<Response<proto::Introduction>, Status> {
        let (actor, _) = self.actor(request)?;
        reply(
            self.controller.get_introduction(&actor),
            domains::introduction,
        )
    }

    async fn list_domains(
        &self,
        request: Request<proto::ListDomainsRequest>,
    ) -> Result<Response<proto::ListDomainsResponse>, Status> {
        let (actor, _) = self.actor(request)?;
        reply(self.controller.list_domains(&actor), domains::others)
    }

    async fn get_other_domain(
        &self,
        request: Request<proto::GetOtherDomainRequest>,
    ) -> Result<Response<proto::OtherDomain>, Status> {
        let (actor, asked) = self.actor(request)?;
        let answer = self.controller.get_other_domain(&actor, &asked.name);
        reply(answer, |one, _| domains::other(one))
    }

    async fn trust_domain(
        &self,
        request: Request<proto::TrustDomainRequest>,
    ) -> Result<Response<proto::Trust>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self.controller.trust(&asking, asked).await;
        reply(answer, domains::trust)
    }

    async fn change_trust(
        &self,
        request: Request<proto::ChangeTrustRequest>,
    ) -> Result<Response<proto::Trust>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self
            .controller
            .change_trust(&asking, asked.name.clone(), asked)
            .await;
        reply(answer, domains::trust)
    }

    async fn distrust_domain(
        &self,
        request: Request<proto::DistrustDomainRequest>,
    ) -> Result<Response<proto::Deleted>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self.controller.distrust(&asking, asked.name).await;
        reply(answer, messages::deleted)
    }

    async fn list_remote_routers(
        &self,
        request: Request<proto::ListRemoteRoutersRequest>,
    ) -> Result<Response<proto::ListRemoteRoutersResponse>, Status> {
        let (actor, asked) = self.actor(request)?;
        let answer = self.controller.list_remote_routers(&actor, &asked.name);
        reply(answer, |all, _| proto::ListRemoteRoutersResponse {
            routers: each(all, domains::router),
        })
    }

    async fn list_remote_tenants(
        &self,
        request: Request<proto::ListRemoteTenantsRequest>,
    ) -> Result<Response<proto::ListRemoteTenantsResponse>, Status> {
        let (actor, asked) = self.actor(request)?;
        let answer = self.controller.list_remote_tenants(&actor, &asked.name);
        reply(answer, |all, _| proto::ListRemoteTenantsResponse {
            tenants: each(all, domains::tenant),
        })
    }

    async fn list_shares(
        &self,
        request: Request<proto::ListSharesRequest>,
    ) -> Result<Response<proto::ListSharesResponse>, Status> {
        let (actor, asked) = self.actor(request)?;
        let answer = self.controller.list_shared(&actor, &asked.name);
        reply(answer, |all, _| proto::ListSharesResponse {
            shares: each(all, domains::share),
        })
    }

    async fn share_tenant(
        &self,
        request: Request<proto::ShareTenantRequest>,
    ) -> Result<Response<proto::Share>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self
            .controller
            .share(&asking, asked.domain, asked.tenant)
            .await;
        reply(answer, domains::share)
    }

    async fn unshare_tenant(
        &self,
        request: Request<proto::UnshareTenantRequest>,
    ) -> Result<Response<proto::Deleted>, Status> {
        let (asking, asked) = self.asking(request, conditions!())?;
        let answer = self
            .controller
            .unshare(&asking, asked.domain, asked.tenant)
            .await;
        reply(answer, messages::deleted)
    }

    async fn list_revisions(
        &self,
        request: Request<proto::ListRevisionsRequest>,
    ) -> Result<Response<proto::ListRevisionsResponse>, Status> {
        let (actor, asked) = self.actor(request)?;
        let limit = asked.limit.map(|limit| limit as usize);
        let answer = self.controller.list_revisions(&actor, asked.before, limit);
        reply(answer.await, |all, _| proto::ListRevisionsResponse {
            revisions: all.into_iter().map(messages::revision).collect(),
        })
    }

    async fn get_revision(
        &self,
        request: Request<proto::GetRevisionRequest>,
    ) -> Result<Response<proto::Revision>, Status> {
        let (actor, asked) = self.actor(request)?;
        let answer = self.controller.get_revision(&actor, asked.number).await;
        reply(answer, |one, _| messages::revision(one))
    }

    async fn roll_back(
        &self,
        request: Request<proto::RollBackRequest>,
    ) -> Result<Response<proto::RolledBack>, Status> {
        let (asking, asked) = self.asking(request, |asked| (None, asked.idempotency_key.take()))?;
        let answer = self.controller.roll_back(&asking, asked.number).await;
        reply(answer, messages::rolled_back)
    }

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let token = shown(request.metadata()).map(ToOwned::to_owned);
        let revisions = self.controller.watch(token, request.into_inner().since)?;
        let stream = ReceiverStream::new(revisions)
            .map(|revision| revision.map(messages::revision).map_err(Status::from));
        Ok(Response::new(Box::pin(stream)))
    }
}
