// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title IAnchorLog
/// @notice Gives the checkpoint roots of many append-only logs a block, and so a time that nobody can choose. FORMAT.md §5.
/// @dev Holds no images, no record ids and nothing that names a patient. A log is written by its anchorer alone, so no call of
/// a stranger can revert, delay (other than by buying block space) or pollute a batch. Sizes count entries of the RFC 9162 tree.
interface IAnchorLog {
    /// @notice A log was opened. `log` is `keccak256(abi.encode(owner, key))`.
    event LogOpened(bytes32 indexed log, address indexed owner, bytes32 key, address anchorer);

    /// @notice From now on `anchorer` alone may anchor.
    event AnchorerChanged(bytes32 indexed log, address anchorer);

    /// @notice A checkpoint of `newSize` entries with tree head `root` follows the one of `oldSize` entries.
    /// @param beacons The beacons as committed: for each, 8 bytes block number (big endian) and 32 bytes block hash.
    event Anchored(bytes32 indexed log, uint64 oldSize, uint64 indexed newSize, bytes32 root, bytes beacons);

    /// @notice `log` is already open; its anchorer can be changed by its owner.
    error AlreadyOpen(bytes32 log);

    /// @notice The zero address cannot anchor for `log`.
    error ZeroAnchorer(bytes32 log);

    /// @notice `caller` is not the owner of `log` (also when the log was never opened).
    error NotOwner(bytes32 log, address caller);

    /// @notice `caller` is not the anchorer of `log` (also when the log was never opened).
    error NotAnchorer(bytes32 log, address caller);

    /// @notice The head of `log` has `headSize` entries, so nothing can be anchored on top of `oldSize`.
    error NotTheHead(bytes32 log, uint64 headSize, uint64 oldSize);

    /// @notice `newSize` does not grow the log beyond `oldSize`.
    error NotGrowing(uint64 oldSize, uint64 newSize);

    /// @notice `expected` = newSize - oldSize leaves belong to this anchor, the call carries `given`.
    error WrongLeafCount(uint256 expected, uint256 given);

    /// @notice Opens a log that belongs to the caller. The id depends on the caller, so nobody can take it beforehand.
    /// @param key SHA-256 of the Ed25519 public key that signs the log's checkpoints.
    /// @param anchorer The account that may anchor; may be the owner.
    /// @return log The id of the log.
    function open(bytes32 key, address anchorer) external returns (bytes32 log);

    /// @notice Replaces the anchorer. Only for the owner, who stays the owner forever: it is part of the log's id.
    function setAnchorer(bytes32 log, address anchorer) external;

    /// @notice Anchors a checkpoint. Only for the anchorer, and only on top of the head.
    /// @param oldSize Size of the head: a second anchor of the same checkpoint, or one on a head that a re-org took, reverts.
    /// @param newSize Size of the checkpoint.
    /// @param root Tree head of the checkpoint. The contract cannot see whether it extends the old one: consistency proofs show that.
    /// @param beacons Numbers of the blocks that the batch's records name. The contract looks their hashes up itself; a block
    /// that is older than 256 blocks, this very one or a future one gets the zero hash, which proves nothing and reverts nothing.
    function anchor(bytes32 log, uint64 oldSize, uint64 newSize, bytes32 root, uint64[] calldata beacons) external;

    /// @notice The same, with the leaf hashes of the entries from `oldSize` on in the calldata, for anyone to rebuild the tree from.
    /// @dev Only the number of leaves is checked. Whether they hash to `root` is seen by whoever rebuilds the tree.
    function anchorWithLeaves(
        bytes32 log,
        uint64 oldSize,
        uint64 newSize,
        bytes32 root,
        uint64[] calldata beacons,
        bytes32[] calldata leaves
    ) external;

    /// @notice Who owns and who writes `log`, and how many entries are anchored. All zero when it was never opened.
    function head(bytes32 log) external view returns (address owner, address anchorer, uint64 size);

    /// @notice What was anchored for `size` entries, zero for nothing:
    /// `keccak256(abi.encode(root, uint256(oldSize), block.number, block.timestamp, keccak256(beacons)))`, `beacons` as in `Anchored`.
    function anchors(bytes32 log, uint64 size) external view returns (bytes32 commitment);
}
