//! What valgate is measured with, as one program: `bench/run` calls it.

mod clients;
mod floor;
mod mint;
mod upstream;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about)]
enum Part {
    /// A bare proxy on the gateway's stack: what the same libraries cost without a gateway around them
    Floor(floor::Options),
    /// Answers every request at once; `/1m` with 1 MiB
    Upstream(upstream::Options),
    /// Makes TLS connections and sends requests over them
    #[command(subcommand)]
    Connect(Connect),
    /// Writes signed tokens, one a line
    Mint(mint::Options),
    /// Verifies one signature again and again: what the library takes for that and nothing else
    Verify(mint::Verify),
}

#[derive(Subcommand)]
enum Connect {
    /// As many as it can, one after the other on each of several tasks
    Repeat(clients::Repeat),
    /// So many, kept open without another request until standard input ends
    Hold(clients::Hold),
    /// Requests at a fixed rate over connections that stay
    Steady(clients::Steady),
}

fn main() -> anyhow::Result<()> {
    let part = Part::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    match part {
        Part::Floor(options) => local.block_on(&runtime, floor::run(options)),
        Part::Upstream(options) => local.block_on(&runtime, upstream::run(options)),
        Part::Connect(Connect::Repeat(options)) => local.block_on(&runtime, clients::repeat(options)),
        Part::Connect(Connect::Hold(options)) => local.block_on(&runtime, clients::hold(options)),
        Part::Connect(Connect::Steady(options)) => clients::steady(&options),
        Part::Mint(options) => mint::run(&options),
        Part::Verify(options) => mint::verify(&options),
    }
}
