//! HTTP: one plane for machines, one for people and programs.

pub mod admin;
pub mod boot;
