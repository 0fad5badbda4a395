// Blendshapes in the groups that an animator looks for, by the first word of ARKit's names.
const GROUPS = { Eyes: 'eye', Brows: 'brow', Jaw: 'jaw', Mouth: 'mouth', Cheeks: 'cheek', Nose: 'nose', Tongue: 'tongue' };

// names -> Map from group to names, groups in the order above, the rest under "Other".
export function groupedShapes(names) {
  const groups = new Map();
  const groupOf = (name) => Object.keys(GROUPS).find((group) => name.startsWith(GROUPS[group])) ?? 'Other';
  for (const group of [...Object.keys(GROUPS), 'Other']) {
    const members = names.filter((name) => groupOf(name) === group);
    if (members.length) groups.set(group, members);
  }
  return groups;
}
