"""The only code that talks to blockchains: adapters, wallets, signer, watcher, payouts, sweeps, reconciliation."""
