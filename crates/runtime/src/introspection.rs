//! What any gRPC client can ask a server about itself: whether it serves (`grpc.health.v1.Health`), and which services
//! it has (`grpc.reflection`, v1 and v1alpha). Neither shows content, and neither asks for a token.

use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::server::Builder;

use crate::BoxError;

/// Bytes of the longest question. Anybody may ask, so that none may take much to hold.
const QUESTION_BYTES_MAX: usize = 16 << 10;
/// Name of the whole server, in questions for its health.
const SERVER: &str = "";
/// Services which every server has.
const OWN: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Says whether a server serves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    service: &'static str,
}

impl Health {
    /// Requests are answered from now on.
    pub async fn serving(&self) {
        self.set(ServingStatus::Serving).await;
    }

    /// Clients should turn to others from now on, though requests are answered for a while.
    pub async fn not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// Ends the streams of those who watch, which would keep their connections open.
    pub async fn end(&self) {
        let mut reporter = self.reporter.clone();
        for name in [SERVER, self.service] {
            reporter.clear_service_status(name).await;
        }
    }

    async fn set(&self, status: ServingStatus) {
        for name in [SERVER, self.service] {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

/// Adds both to the routes of a server of `service`, which does not serve yet.
///
/// # Errors
/// Never, as the build made the descriptors.
pub async fn add(routes: Routes, service: &'static str) -> Result<(Routes, Health), BoxError> {
    let (reporter, server) = tonic_health::server::health_reporter();
    let health = Health { reporter, service };
    health.not_serving().await;
    let described = || {
        let described = Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        let names = [service].into_iter().chain(OWN);
        names.fold(described, |described, name| described.with_service_name(name))
    };
    let routes = routes
        .add_service(server.max_decoding_message_size(QUESTION_BYTES_MAX))
        .add_service(described().build_v1()?.max_decoding_message_size(QUESTION_BYTES_MAX))
        .add_service(described().build_v1alpha()?.max_decoding_message_size(QUESTION_BYTES_MAX));
    Ok((routes, health))
}
