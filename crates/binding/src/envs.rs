//! Runtime environments.

use std::collections::HashMap;

use heliostat_client::EnvWish;
use heliostat_proto::EnvId;
use napi_derive::napi;

use crate::raw::Thrown;

/// What a program asks for; what is left out is inherited.
#[napi(object, object_to_js = false)]
#[derive(Debug)]
pub struct RawEnv {
    /// A directory to pack, as an absolute path.
    pub working_dir: Option<String>,
    /// Variables of the environment.
    pub env_vars: Option<HashMap<String, String>>,
    /// Flags of Node.
    pub exec_argv: Option<Vec<String>>,
}

impl From<RawEnv> for EnvWish {
    fn from(raw: RawEnv) -> Self {
        Self {
            working_dir: raw.working_dir.map(Into::into),
            env_vars: raw.env_vars.into_iter().flatten().collect(),
            exec_argv: raw.exec_argv,
        }
    }
}

/// Makes an environment known, packs its directory, and returns its id for `prepareCall`.
#[napi]
pub fn prepare_env(env: RawEnv) -> napi::Result<String> {
    Ok(client()?.prepare_env(env.into()).to_string())
}

/// Sets the environment of the tasks that ask for none.
#[napi]
pub fn inherit_env(env: RawEnv) -> napi::Result<()> {
    client()?.inherit_env(env.into());
    Ok(())
}

/// An environment by its id; the inherited one for an empty text.
pub(crate) fn of(client: &heliostat_client::Client, id: &str) -> Result<EnvId, Thrown> {
    if id.is_empty() {
        Ok(client.inherited_env())
    } else {
        EnvId::parse(id).map_err(|_| Thrown::argument("an environment's id"))
    }
}

fn client() -> napi::Result<std::sync::Arc<heliostat_client::Client>> {
    crate::runtime::client().map_err(|thrown| crate::lifecycle::error(&thrown.code, thrown.message))
}
