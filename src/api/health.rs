//! grpc.health.v1: whether the coordinator serves, for each service and for all of them ("").
//!
//! It does not while it recovers what is in its store, and from when it was asked to stop: who
//! watches then goes elsewhere, or waits, before calls begin to fail.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::proto::v1::{
    audit_service_server, job_service_server, model_service_server, object_service_server,
    statistics_service_server, status_service_server, store_service_server, version_service_server,
    worker_service_server,
};

/// Everything whose health is told. The empty name stands for the server as a whole.
const SERVICES: &[&str] = &[
    "",
    audit_service_server::SERVICE_NAME,
    job_service_server::SERVICE_NAME,
    model_service_server::SERVICE_NAME,
    object_service_server::SERVICE_NAME,
    statistics_service_server::SERVICE_NAME,
    status_service_server::SERVICE_NAME,
    store_service_server::SERVICE_NAME,
    version_service_server::SERVICE_NAME,
    worker_service_server::SERVICE_NAME,
];

/// The health of a server. Clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Of a server that does not serve yet.
    pub async fn recovering() -> Self {
        let health = Self {
            reporter: HealthReporter::new(),
        };
        health.say(ServingStatus::NotServing).await;
        health
    }

    /// Of a server that serves.
    pub async fn serving() -> Self {
        let health = Self::recovering().await;
        health.serves().await;
        health
    }

    /// It serves from now on.
    pub async fn serves(&self) {
        self.say(ServingStatus::Serving).await;
    }

    /// It is about to stop.
    pub async fn drains(&self) {
        self.say(ServingStatus::NotServing).await;
    }

    async fn say(&self, status: ServingStatus) {
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }

    pub(super) fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use prost_reflect::DescriptorPool;
    use tonic::Request;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_server::Health as _;

    use super::*;

    #[tokio::test]
    async fn every_service_of_the_contract_is_told_in_every_state() {
        let pool = DescriptorPool::decode(crate::proto::DESCRIPTORS).unwrap();
        let ours: BTreeSet<String> = pool
            .services()
            .map(|service| service.full_name().to_owned())
            .filter(|name| name.starts_with("palimpsest."))
            .chain([String::new()])
            .collect();
        let told: BTreeSet<String> = SERVICES.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(told, ours);

        let health = Health::recovering().await;
        let service = HealthService::from_health_reporter(health.reporter.clone());
        for serves in [false, true, false] {
            if serves {
                health.serves().await;
            } else {
                health.drains().await;
            }
            for name in SERVICES {
                let service_name = (*name).to_owned();
                let request = Request::new(HealthCheckRequest {
                    service: service_name,
                });
                let said = service.check(request).await.unwrap().into_inner().status;
                let expected = if serves {
                    ServingStatus::Serving
                } else {
                    ServingStatus::NotServing
                };
                assert_eq!(said, expected as i32, "{name}");
            }
        }
    }
}
