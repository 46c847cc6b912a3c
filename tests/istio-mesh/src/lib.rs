//! An Istio mesh on one machine: real etcd, Kubernetes, istiod, SPIRE and controller manager, and Envoys as processes.
//!
//! KWOK simulates the node. No kubelet starts containers, so the Envoys run as processes next to the pods that they
//! belong to.

pub mod control_plane;
pub mod controller;
pub mod controller_manager;
pub mod environment;
pub mod istio;
pub mod kubectl;
pub mod mesh;
pub mod proxy;
pub mod shell;
pub mod spire;
pub mod tools;
