//! etcd, real or embedded: transactions, leases and the decoded mirror.
