//! N-API surface: conversion only, no logic.
//!
//! The hot functions are raw N-API ([`raw`]), declared in `raw.d.ts`; the rest goes through the macros.
#![allow(unsafe_code)] // N-API is a C interface

mod calls;
mod drafts;
pub mod envs;
mod event_loop;
pub mod lifecycle;
mod output;
pub mod parts;
mod port;
mod raw;
mod runtime;
mod small;
mod state;
mod streams;
mod tasks;
mod values;
mod views;
mod waits;

use napi::JsValue;
use napi::bindgen_prelude::Object;
use napi_derive::napi;

/// Adds the raw functions to the addon's exports.
#[napi(module_exports)]
pub fn export_raw(exports: Object<'_>, env: napi::Env) -> napi::Result<()> {
    for functions in [
        drafts::FUNCTIONS,
        values::FUNCTIONS,
        small::FUNCTIONS,
        waits::FUNCTIONS,
        port::FUNCTIONS,
        calls::FUNCTIONS,
        tasks::FUNCTIONS,
        streams::FUNCTIONS,
        views::FUNCTIONS,
        output::FUNCTIONS,
    ] {
        raw::export(env.raw(), exports.raw(), functions);
    }
    Ok(())
}
