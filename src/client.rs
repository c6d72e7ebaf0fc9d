//! The client: the generated stubs over one channel.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::proto::v1::job_service_client::JobServiceClient;
use crate::proto::v1::model_service_client::ModelServiceClient;
use crate::proto::v1::object_service_client::ObjectServiceClient;
use crate::proto::v1::worker_service_client::WorkerServiceClient;

/// Largest message that is taken or sent, as the server has it.
const MESSAGE_LIMIT: usize = 4 << 20;

/// Bytes that may be under way on a stream: weights travel over networks with a delay.
pub const WINDOW: u32 = 8 << 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is malformed.
    #[error("'{address}' is not an address: write it as http://HOST:PORT")]
    Address {
        /// The address.
        address: String,
    },
    /// Nobody answers.
    #[error("no coordinator answers at {address} ({reason}): is 'palimpsest serve' running there?")]
    Connect {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
}

/// A connection to a coordinator. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

/// An endpoint with the settings that every connection of this program has.
///
/// # Errors
/// [`Error::Address`].
pub fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let malformed = || Error::Address {
        address: address.to_owned(),
    };
    let with_scheme = if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    Ok(Endpoint::from_shared(with_scheme)
        .map_err(|_| malformed())?
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10)))
}

impl Client {
    /// Connects to a coordinator.
    ///
    /// # Errors
    /// [`Error::Address`] and [`Error::Connect`].
    pub async fn connect(address: &str) -> Result<Self, Error> {
        let channel = endpoint(address)?
            .connect()
            .await
            .map_err(|error| Error::Connect {
                address: address.to_owned(),
                reason: deepest(&error),
            })?;
        Ok(Self::new(channel))
    }

    /// A client over a channel.
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// The channel.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Jobs.
    pub fn jobs(&self) -> JobServiceClient<Channel> {
        JobServiceClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// Models.
    pub fn models(&self) -> ModelServiceClient<Channel> {
        ModelServiceClient::new(self.channel())
    }

    /// Objects.
    pub fn objects(&self) -> ObjectServiceClient<Channel> {
        ObjectServiceClient::new(self.channel())
    }

    /// Workers.
    pub fn workers(&self) -> WorkerServiceClient<Channel> {
        WorkerServiceClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }
}

/// The cause at the bottom of an error: a transport's own words say little.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
