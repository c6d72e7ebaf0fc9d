//! What a server says of its health.

use tonic::transport::Endpoint;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// What is told of a service at an address.
pub async fn health(address: &str, service: &str) -> ServingStatus {
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    let service = service.to_owned();
    let answer = HealthClient::new(channel)
        .check(HealthCheckRequest { service })
        .await;
    match answer.unwrap().into_inner().status {
        status if status == ServingStatus::Serving as i32 => ServingStatus::Serving,
        status if status == ServingStatus::NotServing as i32 => ServingStatus::NotServing,
        _ => ServingStatus::Unknown,
    }
}
