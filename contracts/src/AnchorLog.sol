// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAnchorLog} from "../interfaces/IAnchorLog.sol";

/// @title AnchorLog
/// @dev Has no owner, no proxy, no immutables and holds no ether, so its code hash is the same on every chain.
contract AnchorLog is IAnchorLog {
    /// @dev What an anchor reads and writes shares one storage word.
    struct Head {
        address anchorer;
        uint64 size;
        address owner;
    }

    /// @dev Slot 0.
    mapping(bytes32 log => Head) private heads;

    /// @inheritdoc IAnchorLog
    /// @dev Slot 1: state proofs (EIP-1186) of an anchor are made of this mapping.
    mapping(bytes32 log => mapping(uint64 size => bytes32)) public anchors;

    /// @inheritdoc IAnchorLog
    function open(bytes32 key, address anchorer) external returns (bytes32 log) {
        log = keccak256(abi.encode(msg.sender, key));
        if (heads[log].owner != address(0)) revert AlreadyOpen(log);
        if (anchorer == address(0)) revert ZeroAnchorer(log);
        heads[log] = Head({anchorer: anchorer, size: 0, owner: msg.sender});
        emit LogOpened(log, msg.sender, key, anchorer);
    }

    /// @inheritdoc IAnchorLog
    function setAnchorer(bytes32 log, address anchorer) external {
        if (heads[log].owner != msg.sender) revert NotOwner(log, msg.sender);
        if (anchorer == address(0)) revert ZeroAnchorer(log);
        heads[log].anchorer = anchorer;
        emit AnchorerChanged(log, anchorer);
    }

    /// @inheritdoc IAnchorLog
    function anchor(bytes32 log, uint64 oldSize, uint64 newSize, bytes32 root, uint64[] calldata beacons) external {
        _anchor(log, oldSize, newSize, root, beacons);
    }

    /// @inheritdoc IAnchorLog
    function anchorWithLeaves(
        bytes32 log,
        uint64 oldSize,
        uint64 newSize,
        bytes32 root,
        uint64[] calldata beacons,
        bytes32[] calldata leaves
    ) external {
        _anchor(log, oldSize, newSize, root, beacons);
        if (leaves.length != newSize - oldSize) revert WrongLeafCount(newSize - oldSize, leaves.length);
    }

    /// @inheritdoc IAnchorLog
    function head(bytes32 log) external view returns (address owner, address anchorer, uint64 size) {
        Head storage its = heads[log];
        return (its.owner, its.anchorer, its.size);
    }

    function _anchor(bytes32 log, uint64 oldSize, uint64 newSize, bytes32 root, uint64[] calldata beacons) private {
        Head storage its = heads[log];
        (address anchorer, uint64 size) = (its.anchorer, its.size);
        if (anchorer != msg.sender) revert NotAnchorer(log, msg.sender);
        if (size != oldSize) revert NotTheHead(log, size, oldSize);
        if (newSize <= oldSize) revert NotGrowing(oldSize, newSize);

        bytes memory looked = _lookUp(beacons);
        its.size = newSize;
        anchors[log][newSize] = keccak256(abi.encode(root, uint256(oldSize), block.number, block.timestamp, keccak256(looked)));
        emit Anchored(log, oldSize, newSize, root, looked);
    }

    /// @dev `abi.encodePacked(number_0, hash_0, number_1, hash_1, ...)`, 40 bytes a beacon, in one allocation.
    function _lookUp(uint64[] calldata beacons) private view returns (bytes memory looked) {
        looked = new bytes(40 * beacons.length);
        for (uint256 i = 0; i < beacons.length; ++i) {
            uint256 blockNumber = beacons[i];
            bytes32 blockHash = blockhash(blockNumber);
            // The first store's 24 low bytes are overwritten by the second, which ends where the next beacon starts.
            assembly ("memory-safe") {
                let at := add(add(looked, 32), mul(i, 40))
                mstore(at, shl(192, blockNumber))
                mstore(add(at, 8), blockHash)
            }
        }
    }
}
