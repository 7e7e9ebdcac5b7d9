// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice The cheat codes of forge that these tests use.
interface Vm {
    function assume(bool condition) external pure;
    function cool(address target) external;
    function expectEmit(address emitter) external;
    function expectRevert(bytes calldata reason) external;
    function load(address target, bytes32 slot) external view returns (bytes32);
    function prank(address sender) external;
    function roll(uint256 blockNumber) external;
    function warp(uint256 timestamp) external;
}

/// @notice A contract with tests: fails by reverting, with what was got and what was wanted.
abstract contract Checked {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    event log_named_uint(string key, uint256 value);

    error Differs(string what, bytes32 got, bytes32 wanted);

    function same(string memory what, bytes32 got, bytes32 wanted) internal pure {
        if (got != wanted) revert Differs(what, got, wanted);
    }

    function same(string memory what, uint256 got, uint256 wanted) internal pure {
        same(what, bytes32(got), bytes32(wanted));
    }

    function same(string memory what, address got, address wanted) internal pure {
        same(what, bytes32(uint256(uint160(got))), bytes32(uint256(uint160(wanted))));
    }

    function holds(string memory what, bool fact) internal pure {
        same(what, fact ? 1 : 0, 1);
    }

    /// @notice The slot of `mapping[key]` for a mapping that has `slot`.
    function slotOf(bytes32 key, bytes32 slot) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(key, slot));
    }
}
