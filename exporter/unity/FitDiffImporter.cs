// Prepares FitDiff heads in a Unity project (2021.3 or later with com.unity.cloud.gltfast). Lies in a folder "Editor".
//
// Textures get their settings from their names. Each FitDiffHead*.glb becomes a prefab beside it, with a LODGroup where
// the file has nodes ..._LOD0, ..._LOD1 and with skinned meshes that are never culled by the neutral face's bounds.
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Text.RegularExpressions;
using UnityEditor;
using UnityEngine;

namespace FitDiff.Editor
{
    public sealed class FitDiffImporter : AssetPostprocessor
    {
        private static readonly Regex Ours = new Regex(@"^(FitDiff|T_FitDiff)", RegexOptions.IgnoreCase);
        private static readonly Regex Level = new Regex(@"_LOD(\d+)(_\d+)?$", RegexOptions.IgnoreCase);
        private static readonly Regex GreenDown = new Regex(@"^T_.*_N$"); // made for Unreal
        private static readonly float[] ScreenHeights = { 0.5f, 0.25f, 0.1f, 0.03f };

        private void OnPreprocessTexture()
        {
            string name = Path.GetFileNameWithoutExtension(assetPath);
            if (!Ours.IsMatch(name))
            {
                return;
            }
            var importer = (TextureImporter)assetImporter;
            if (name.EndsWith("_Normal") || name.EndsWith("_N"))
            {
                importer.textureType = TextureImporterType.NormalMap;
                importer.sRGBTexture = false;
                importer.flipGreenChannel = GreenDown.IsMatch(name); // Unity wants green up
            }
            else
            {
                bool color = name.EndsWith("_BaseMap") || name.EndsWith("_BaseColor") || name.EndsWith("_D")
                    || name.EndsWith("_SpecularColor");
                importer.textureType = TextureImporterType.Default;
                importer.sRGBTexture = color;
            }
            importer.wrapMode = TextureWrapMode.Clamp;
            importer.mipmapEnabled = true;
            importer.maxTextureSize = 4096;
        }

        private static void OnPostprocessAllAssets(string[] imported, string[] deleted, string[] moved, string[] movedFrom)
        {
            foreach (string path in imported)
            {
                string name = Path.GetFileNameWithoutExtension(path);
                if (path.EndsWith(".glb") && Ours.IsMatch(name) && !Level.IsMatch(name))
                {
                    // Assets must not be made while others are being imported.
                    EditorApplication.delayCall += () => MakePrefab(path);
                }
            }
        }

        [MenuItem("Assets/FitDiff/Make Prefab")]
        private static void MakePrefabOfSelection()
        {
            foreach (Object selected in Selection.objects)
            {
                MakePrefab(AssetDatabase.GetAssetPath(selected));
            }
        }

        private static void MakePrefab(string path)
        {
            var model = AssetDatabase.LoadAssetAtPath<GameObject>(path);
            string target = Path.ChangeExtension(path, ".prefab");
            if (model == null || AssetDatabase.LoadAssetAtPath<GameObject>(target) != null)
            {
                return; // not imported, or a prefab that somebody may have worked on
            }
            var head = (GameObject)PrefabUtility.InstantiatePrefab(model);
            try
            {
                var renderers = head.GetComponentsInChildren<SkinnedMeshRenderer>(true);
                foreach (SkinnedMeshRenderer renderer in renderers)
                {
                    renderer.updateWhenOffscreen = true;
                    renderer.quality = SkinQuality.Bone4;
                }
                AddLevels(head, renderers);
                PrefabUtility.SaveAsPrefabAsset(head, target);
                int shapes = renderers.Select(r => r.sharedMesh.blendShapeCount).DefaultIfEmpty(0).Max();
                Debug.Log($"{path}: {target} with {shapes} blendshapes", AssetDatabase.LoadMainAssetAtPath(target));
            }
            finally
            {
                Object.DestroyImmediate(head);
            }
        }

        private static void AddLevels(GameObject head, IEnumerable<Renderer> renderers)
        {
            var levels = renderers.GroupBy(LevelOf).OrderBy(level => level.Key).ToArray();
            if (levels.Length < 2)
            {
                return;
            }
            var group = head.AddComponent<LODGroup>();
            group.SetLODs(levels
                .Select((level, index) => new LOD(ScreenHeights[Mathf.Min(index, ScreenHeights.Length - 1)], level.ToArray()))
                .ToArray());
            group.RecalculateBounds();
        }

        private static int LevelOf(Renderer renderer)
        {
            for (Transform node = renderer.transform; node != null; node = node.parent)
            {
                Match match = Level.Match(node.name);
                if (match.Success)
                {
                    return int.Parse(match.Groups[1].Value);
                }
            }
            return 0;
        }
    }
}
