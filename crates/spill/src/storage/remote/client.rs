//! Clients of object stores, made of a URI, the environment and options.

use std::str::FromStr;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::multipart::MultipartStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use crate::storage::uri::{Options, Scheme, Secrets, UriError};

/// One client, by its two sides.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) uploads: Arc<dyn MultipartStore>,
}

impl Client {
    pub(super) fn new(scheme: Scheme, uri: &str, bucket: &str, options: &Options) -> Result<Self, UriError> {
        // There is one TLS provider in a process; whoever is first sets it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let secrets = Secrets::of(options);
        let refuse = |problem: String| UriError { uri: uri.to_owned(), problem: secrets.redact(&problem) };
        let failed = |error: object_store::Error| refuse(error.to_string());
        match scheme {
            Scheme::S3 => {
                let mut builder = AmazonS3Builder::from_env().with_client_options(client_options());
                for (key, value) in keys::<AmazonS3ConfigKey>(options, &refuse)? {
                    builder = builder.with_config(key, value);
                }
                for key in [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint] {
                    check_endpoint(builder.get_config_value(&key)).map_err(&refuse)?;
                }
                builder.with_bucket_name(bucket).with_retry(no_retry()).build().map(Self::of).map_err(failed)
            }
            Scheme::Google => {
                let mut builder = GoogleCloudStorageBuilder::from_env().with_client_options(client_options());
                for (key, value) in keys::<GoogleConfigKey>(options, &refuse)? {
                    builder = builder.with_config(key, value);
                }
                check_endpoint(builder.get_config_value(&GoogleConfigKey::BaseUrl)).map_err(&refuse)?;
                builder.with_bucket_name(bucket).with_retry(no_retry()).build().map(Self::of).map_err(failed)
            }
            Scheme::Azure => {
                let mut builder = MicrosoftAzureBuilder::from_env().with_client_options(client_options());
                for (key, value) in keys::<AzureConfigKey>(options, &refuse)? {
                    builder = builder.with_config(key, value);
                }
                check_endpoint(builder.get_config_value(&AzureConfigKey::Endpoint)).map_err(&refuse)?;
                builder.with_container_name(bucket).with_retry(no_retry()).build().map(Self::of).map_err(failed)
            }
        }
    }

    fn of<T: ObjectStore + MultipartStore>(client: T) -> Self {
        let client = Arc::new(client);
        Self { objects: Arc::clone(&client) as _, uploads: client }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client's own output is not ours to vouch for.
        f.write_str("Client")
    }
}

fn keys<'a, K: FromStr>(
    options: &'a Options,
    refuse: &impl Fn(String) -> UriError,
) -> Result<Vec<(K, &'a str)>, UriError> {
    let parse = |(key, value): (&str, &'a str)| match key.to_ascii_lowercase().parse() {
        Ok(key) => Ok((key, value)),
        Err(_) => Err(refuse(format!(
            "the storage option `{key}` is not known; examples are `endpoint`, `region`, `access_key_id`, \
             `secret_access_key` and `allow_http`"
        ))),
    };
    options.iter().map(parse).collect()
}

/// The client takes any text, and panics at the first request.
fn check_endpoint(endpoint: Option<String>) -> Result<(), String> {
    let good =
        |text: &String| url::Url::parse(text).is_ok_and(|url| url.has_host() && url.scheme().starts_with("http"));
    match endpoint {
        Some(text) if !good(&text) => Err("the endpoint must be a URL such as http://127.0.0.1:9000".into()),
        _ => Ok(()),
    }
}

/// Time limits are ours: the client knows only one for a request of any size.
fn client_options() -> ClientOptions {
    ClientOptions::new().with_timeout_disabled().with_read_timeout_disabled()
}

/// Tries are ours as well: they go on with what has arrived, end when the engine shuts down, and treat a response that
/// stalls like one that was refused.
fn no_retry() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}
