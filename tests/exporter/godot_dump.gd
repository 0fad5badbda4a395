# Writes what Godot made of avatar.glb: shapes.json with materials, and for every surface its positions and, for
# every blendshape, its largest vertex distance. Godot 3 keeps a blendshape as the moved positions.
extends SceneTree

func _init():
	var meshes = []
	visit(load("res://avatar.glb").instance(), meshes)
	var file = File.new()
	file.open("res://shapes.json", File.WRITE)
	file.store_string(JSON.print(meshes))
	file.close()
	quit()

func material_name(material):
	return material.resource_name if material else ""

func visit(node, meshes):
	if node is MeshInstance:
		var names = []
		for shape in node.mesh.get_blend_shape_count():
			names.append(node.mesh.get_blend_shape_name(shape))
		for surface in node.mesh.get_surface_count():
			var rest = node.mesh.surface_get_arrays(surface)[ArrayMesh.ARRAY_VERTEX]
			var moves = []
			for arrays in node.mesh.surface_get_blend_shape_arrays(surface):
				var largest = 0.0
				for index in rest.size():
					largest = max(largest, arrays[ArrayMesh.ARRAY_VERTEX][index].distance_to(rest[index]))
				moves.append(largest)
			var low = rest[0]
			var high = rest[0]
			for point in rest:
				low = Vector3(min(low.x, point.x), min(low.y, point.y), min(low.z, point.z))
				high = Vector3(max(high.x, point.x), max(high.y, point.y), max(high.z, point.z))
			meshes.append({
				"material": material_name(node.mesh.surface_get_material(surface)), "count": rest.size(), "names": names, "moves": moves,
				"low": [low.x, low.y, low.z], "high": [high.x, high.y, high.z], "skinned": node.skin != null,
			})
	for child in node.get_children():
		visit(child, meshes)
