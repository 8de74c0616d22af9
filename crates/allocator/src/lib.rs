//! Assigns items to members and converges etcd towards the assignment.
