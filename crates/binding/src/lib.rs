//! N-API surface: conversion only, no logic.
#![allow(unsafe_code)] // N-API is a C interface
