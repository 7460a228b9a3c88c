/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* What a connection is in each dimension of the policy: see struct carnet_class in carnet_image.h. */
#ifndef CARNET_CLASS_H
#define CARNET_CLASS_H

#include "address.h"
#include "maps.h"

/* The cgroups of a record, as a global function can take them. */
struct carnet_line {
	__u64 id[CARNET_LINE];
};

/* The number of a child, masked where Linux 6.1 sees it: it does not follow the `or` of which clang makes the sum. */
static __always_inline __u32 child_in(__u64 group, __u64 child)
{
	__u64 number = 8 * group + child;

	asm volatile("" : "+r"(number));
	return number & (CARNET_TREE_FAN - 1);
}

/* 1 where the first is less than the second, without a branch: the borrow of the subtraction, which asm hides. */
static __always_inline __u32 is_less(__u64 a, __u32 b)
{
	__u64 difference = a - b;

	asm volatile("" : "+r"(difference));
	return difference >> 63;
}

/*
 * The child to which the value belongs: how many end before it, of every eighth one, then of the eight. Nobody could
 * foretell the branches of a search by halves.
 */
static __always_inline __u32 child_of32(const struct carnet_node32 *node, __u32 value)
{
	__u32 group = 0, child = 0;

	for (int i = 0; i < 7; i++)
		group += is_less(node->group[i], value);
	group &= 7;
	for (int i = 0; i < 7; i++)
		child += is_less(node->last[8 * group + i], value);
	return child_in(group, child);
}

/* The borrow of a subtraction of 64 bits, with the borrow of the one before it. */
static __always_inline __u64 borrow(__u64 a, __u64 b, __u64 before)
{
	__u64 difference = a - b - before;

	asm volatile("" : "+r"(difference));
	return ((~a & b) | (~(a ^ b) & difference)) >> 63;
}

static __always_inline __u32 is_before(const struct carnet_value128 *end, __u64 hi, __u64 lo)
{
	return borrow(end->hi, hi, borrow(end->lo, lo, 0));
}

static __always_inline __u32 child_of128(const struct carnet_node128 *node, __u64 hi, __u64 lo)
{
	__u32 group = 0, child = 0;

	for (int i = 0; i < 7; i++)
		group += is_before(&node->group[i], hi, lo);
	group &= 7;
	for (int i = 0; i < 7; i++)
		child += is_before(&node->last[8 * group + i], hi, lo);
	return child_in(group, child);
}

/* The class of a 32-bit value. Global, so that it is verified once. */
__noinline int carnet_class_of32(__u32 dimension, __u32 value, __u32 slot)
{
	const struct carnet_policy *policy = carnet_policy_at(slot);
	void *nodes = bpf_map_lookup_elem(&carnet_nodes32, &slot);
	const struct carnet_node32 *node;
	const struct carnet_tree *tree;
	__u32 at = 0, child;

	if (!policy || !nodes || dimension >= CARNET_TREES)
		return CARNET_CLASS_NOTHING;
	tree = &policy->tree[dimension];
	for (__u32 level = 0; level < CARNET_TREE_LEVELS; level++) {
		__u32 index = tree->level[level] + at;

		node = bpf_map_lookup_elem(nodes, &index);
		if (!node)
			break;
		child = child_of32(node, value);
		if (level + 1 == tree->levels)
			return node->class_of[child];
		at = at * CARNET_TREE_FAN + child;
	}
	return CARNET_CLASS_NOTHING;
}

/* The class of an IPv6 address. */
__noinline int carnet_class_of_v6(__u64 hi, __u64 lo, __u32 slot)
{
	const struct carnet_policy *policy = carnet_policy_at(slot);
	void *nodes = bpf_map_lookup_elem(&carnet_nodes128, &slot);
	const struct carnet_node128 *node;
	const struct carnet_tree *tree;
	__u32 at = 0, child;

	if (!policy || !nodes)
		return CARNET_CLASS_NOTHING;
	tree = &policy->tree[CARNET_BY_V6];
	for (__u32 level = 0; level < CARNET_TREE_LEVELS; level++) {
		__u32 index = tree->level[level] + at;

		node = bpf_map_lookup_elem(nodes, &index);
		if (!node)
			break;
		child = child_of128(node, hi, lo);
		if (level + 1 == tree->levels)
			return node->class_of[child];
		at = at * CARNET_TREE_FAN + child;
	}
	return CARNET_CLASS_NOTHING;
}

static __always_inline bool has_dimension(const struct carnet_policy *policy, __u32 dimension)
{
	return policy->dimensions >> dimension & 1;
}

static __always_inline __u16 class_if32(const struct carnet_policy *policy, __u32 dimension, __u32 value, __u32 slot)
{
	return has_dimension(policy, dimension) ? carnet_class_of32(dimension, value, slot) : CARNET_CLASS_EVERYTHING;
}

static __always_inline __u32 *class_of_value(__u32 dimension, __u32 hi, __u64 lo, __u32 slot)
{
	struct carnet_value_key key = { .lo = lo, .hi = hi, .dimension = dimension, .slot = slot };

	return bpf_map_lookup_elem(&carnet_values, &key);
}

#define IDENTITY(dimension) ((dimension) - CARNET_IDENTITY_FIRST)

static __always_inline __u16 class_if_value(const struct carnet_policy *policy, __u32 dimension, __u32 hi, __u64 lo,
					    __u32 slot)
{
	__u32 *found;

	if (!has_dimension(policy, dimension))
		return CARNET_CLASS_EVERYTHING;
	found = class_of_value(dimension, hi, lo, slot);
	return found ? *found : policy->otherwise[IDENTITY(dimension)];
}

/* A user's or a group's: where no condition has a range, there is no tree of them. */
static __always_inline __u16 class_if_id(const struct carnet_policy *policy, __u32 dimension, __u32 id, __u32 slot)
{
	return policy->tree[dimension].levels ? carnet_class_of32(dimension, id, slot) :
						class_if_value(policy, dimension, 0, id, slot);
}

/* All classes but that of a cgroup which filters name. Whether there are any such, which are then to be asked for. */
static __always_inline bool identify(__u16 *class_of, const struct carnet_policy *policy, __u32 uid, __u32 gid,
				     __u32 exe_dev, __u64 exe_ino, __u64 netns, __u32 slot)
{
	bool names_cgroups = has_dimension(policy, CARNET_BY_CGROUP);

	class_of[IDENTITY(CARNET_BY_UID)] = class_if_id(policy, CARNET_BY_UID, uid, slot);
	class_of[IDENTITY(CARNET_BY_GID)] = class_if_id(policy, CARNET_BY_GID, gid, slot);
	class_of[IDENTITY(CARNET_BY_EXE)] = class_if_value(policy, CARNET_BY_EXE, exe_dev, exe_ino, slot);
	class_of[IDENTITY(CARNET_BY_NETNS)] = class_if_value(policy, CARNET_BY_NETNS, 0, netns, slot);
	class_of[IDENTITY(CARNET_BY_CGROUP)] =
		names_cgroups ? policy->otherwise[IDENTITY(CARNET_BY_CGROUP)] : CARNET_CLASS_EVERYTHING;
	return names_cgroups;
}

/* Cgroups are asked for from the deepest one up: a class counts those above in. False: no filter names this one. */
static __always_inline bool identify_cgroup(__u16 *class_of, __u64 id, __u32 slot)
{
	__u32 *found = id ? class_of_value(CARNET_BY_CGROUP, 0, id, slot) : NULL;

	if (found)
		class_of[IDENTITY(CARNET_BY_CGROUP)] = *found;
	return found;
}

/* The classes of a record's origin. */
__noinline int carnet_identify(struct carnet_identity *identity, const struct carnet_origin *origin,
			       const struct carnet_line *line, __u32 slot)
{
	const struct carnet_policy *policy = carnet_policy_at(slot);

	if (!policy || !identity || !origin || !line)
		return 0;
	if (!identify(identity->class_of, policy, origin->uid, origin->gid, origin->exe_dev, origin->exe_ino,
		      origin->netns_cookie, slot))
		return 0;
	for (int i = CARNET_LINE - 1; i >= 0; i--)
		if (identify_cgroup(identity->class_of, line->id[i], slot))
			break;
	return 0;
}

/* The classes of the calling process. */
__noinline int carnet_identify_caller(struct carnet_identity *identity, __u64 netns, __u32 slot)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct inode *exe = BPF_CORE_READ(task, mm, exe_file, f_inode);
	const struct carnet_policy *policy = carnet_policy_at(slot);
	__u64 ids = bpf_get_current_uid_gid();

	if (!policy || !identity)
		return 0;
	if (!identify(identity->class_of, policy, ids, ids >> 32, BPF_CORE_READ(exe, i_sb, s_dev),
		      BPF_CORE_READ(exe, i_ino), netns, slot))
		return 0;
	for (int level = CARNET_LINE; level > 0; level--)
		if (identify_cgroup(identity->class_of, bpf_get_current_ancestor_cgroup_id(level), slot))
			break;
	return 0;
}

#endif /* CARNET_CLASS_H */
